"""Which activation is better in a network, and by how much: `python -m zoo.compare my.json`."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import owncode, signals
from zoo.command import count, run_command, seconds
from zoo.errors import UserError
from zoo.sweeps import cluster

FAILED = 1  # exit status where a run failed
HERE = Path("comparisons")

if TYPE_CHECKING:  # so that --help needs neither a backend nor pydantic
    from zoo.comparisons.folder import Folder
    from zoo.comparisons.page import Answer


def compare(
    network: str | Path | Mapping[str, Any] | Callable[..., Any],
    data: Mapping[str, Any] | None = None,
    activations: Iterable[str | Mapping[str, Any]] | Mapping[str, Any] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    rates: int | Sequence[float] = 5,
    rate_seeds: int = 3,
    rate_epochs: int | None = None,
    seeds: int = 10,
    data_dir: Path | None = None,
    time_budget: float | None = None,
) -> "Answer | None":
    """Compares activations in a network and writes a page about it; called again, it resumes what was cut off.

    ```python
    from zoo.compare import compare

    answer = compare("configs/quickstart.json", activations=["relu", "arelu", "method1"], out="comparisons/first")
    print(answer.sentence)
    ```

    In a notebook, with a function that builds the network, and arrays:

    ```python
    def build(activation):
        inputs = keras.Input((20,))
        return keras.Model(inputs, keras.layers.Dense(2)(activation("hidden")(keras.layers.Dense(64)(inputs))))

    data = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}
    answer = compare(build, data, activations=["relu", "arelu"], settings={"training": {"epochs": 20}})
    ```

    The function, what it uses, and the arrays are then written into the folder, as network.py and data.npz.

    Each activation is tried with the same learning rates on validation data, then trained with fresh seeds at its best
    rate and judged on test data, by exact permutation tests that are corrected by Holm's method.

    Args:
        network: the config of the network, its data and how it is trained: a JSON file, or what one holds; paths in
            it start from the file's folder, or from the working directory. Or a function `build(activation)` that
            returns the network, or where it is: "my_nets.py:build".
        data: with a function: arrays x_train, y_train, x_test and y_test, and x_validation and y_validation where
            there are some; or what a config has as its dataset, such as {"folder": "pictures/"}.
        activations: names, specs with a name, or specs by label; the first is what the others are compared with. By
            default the config's own, or ReLU, and adaptive ones.
        settings: with a function: other sections of a config, such as {"training": {"epochs": 20, "batch_size": 64}};
            "model" has options of the function.
        out: the folder; by default comparisons/NAME.
        rates: how many learning rates around the config's, half a decade apart, or which.
        rate_seeds: how many runs each rate is tried with. Of rates that these can't tell from the best of an
            activation, it has the one that most activations share.
        rate_epochs: of a run that chooses the rate; by default half of the config's.
        seeds: how many fresh ones each activation is judged with.
        data_dir: where CIFAR-10 lies.
        time_budget: seconds, after which it stops cleanly.

    Returns:
        What was found: its `sentence`, its `page`, and `content()` as JSON holds it. None where the time was up, or a
        run failed, before there was an answer.

    Raises:
        UserError: for a mistake in the config, the data or an argument, in one line.
    """
    from zoo.comparisons import inputs

    with tempfile.TemporaryDirectory() as place:
        try:
            name, path, carried = inputs.prepare(network, data, settings or {}, Path(place))
            asked = _Asked(path, [], data_dir, Path(out) if out else HERE / name, carried)
            folder = asked.folder(activations, rates, rate_seeds, rate_epochs, seeds)
            return asked.answer(folder, time_budget)
        except UserError as error:  # without a folder that is gone by now
            raise type(error)(str(error).replace(f"{place}{os.sep}", "")) from error.__cause__


class _Asked:
    """What a command or a call is given."""

    def __init__(
        self, path: Path, overrides: list[str], data_dir: Path | None, out: Path, carried: Sequence[Path] = ()
    ):
        from zoo import backend
        from zoo.comparisons.folder import begun_on
        from zoo.config import load

        self.path, self.overrides, self.data_dir, self.out, self.carried = path, overrides, data_dir, out, carried
        self.began = time.monotonic()
        self.config = load(path, overrides, folder=out if carried else None)
        loaded = sys.modules.get("keras")
        self.backend = loaded.config.backend() if loaded else backend.choose(begun_on(out))
        os.environ["KERAS_BACKEND"] = self.backend  # for its runs

    def folder(self, *question: Any) -> "Folder":
        from zoo.comparisons import costs
        from zoo.comparisons.folder import Folder
        from zoo.comparisons.question import ask

        asked = ask(self.config, *question)
        costs.check(self.path, self.overrides, asked)
        return Folder(self.out, self.config, asked, self.backend, self.carried)

    def costs(self, folder: "Folder") -> dict[str, Any]:
        """What runs take, measured where it isn't known yet."""
        from zoo.comparisons.costs import measure

        if not folder.costs:
            _say(f"{self.out} on the {self.backend} backend, each activation for a few seconds first")
        return folder.costs or measure(self.path, self.overrides, folder.question, self.data_dir, _say)

    def answer(
        self,
        folder: "Folder",
        time_budget: float | None,
        nodes: "cluster.Cluster | None" = None,
        command: Sequence[str] = (),
        mixed: bool = False,
    ) -> "Answer | None":
        from zoo import backend
        from zoo.sweeps.work import TIME_TO_SAVE

        costs = self.costs(folder)
        folder.begin(costs)
        _say(folder.plan(costs))
        deadline = self.began + max(0.0, time_budget - TIME_TO_SAVE) if time_budget is not None else None
        if not folder.train(self.data_dir, deadline, nodes):
            _say(f"no answer yet; the same command resumes what is in {self.out}")
            return None
        backend.load()
        from zoo.comparisons.page import Answer

        found = Answer(folder, mixed)
        found.write(command)
        _say(found.sentence)
        _say(f"the page is {found.page}")
        return found


def _say(text: str) -> None:
    print(text, flush=True)


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    arguments.command = ["python", "-m", "zoo.compare", *(sys.argv[1:] if argv is None else argv)]
    return run_command(_main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.compare", description="Compare activations in a network, with an answer in words."
    )
    parser.add_argument("config", type=Path, help="a JSON file, such as configs/quickstart.json")
    parser.add_argument(
        "--activations",
        nargs="+",
        metavar="NAME",
        help='names, LABEL=NAME or LABEL=JSON, such as wide=\'{"name": "arelu", "granularity": "channel"}\'; the first '
        "is what the others are compared with; by default the config's own, or relu, and adaptive ones",
    )
    parser.add_argument(
        "--rates",
        nargs="+",
        type=_rate,
        default=[5],
        metavar="N",
        help="how many learning rates each is tried with, around the config's; or which: --rates 0.01 0.03 0.1",
    )
    parser.add_argument("--rate-seeds", type=count, default=3, metavar="N", help="runs of each rate; by default 3")
    parser.add_argument(
        "--rate-epochs", type=count, metavar="N", help="epochs of these runs; by default half of the config's"
    )
    parser.add_argument("--seeds", type=count, default=10, metavar="N", help="fresh ones for each; by default 10")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE", dest="overrides", help="override fields"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder; by default comparisons/NAME")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, as for zoo.train")
    parser.add_argument("--dry-run", action="store_true", help="check everything, say how long it takes, and stop")
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop cleanly after 90s, 9m or 2.5h")
    parser.add_argument(
        "--mixed", action="store_true", help="answer although runs differ in data or code, and say so on the page"
    )
    parser.add_argument("--trust", action="store_true", help=f"in runs that are resumed, {owncode.HELP}")
    cluster.add_options(parser)
    return parser


def _rate(text: str) -> float | int:
    """A count, where it is a whole number without a point."""
    try:
        found = int(text) if text.isascii() and text.isdecimal() else float(text)
    except ValueError:
        found = 0
    if not 0 < found < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number of learning rates, or learning rates; found {text!r}")
    return found


def _main(arguments: argparse.Namespace) -> int:
    owncode.trust(arguments.trust)
    nodes = cluster.of(arguments)
    out = arguments.out or HERE / arguments.config.stem
    with signals.raised():
        asked = _Asked(arguments.config, arguments.overrides, arguments.data_dir, out)
        rates = _ladder(arguments.rates)
        counts = arguments.rate_seeds, arguments.rate_epochs, arguments.seeds
        folder = asked.folder(arguments.activations, rates, *counts)
        if arguments.dry_run:
            _say(folder.plan(asked.costs(folder)))
            return 0
        budget, command = arguments.time_budget, arguments.command
        asked.answer(folder, budget, nodes, command, arguments.mixed)
        return FAILED if folder.has_failures() else 0


def _ladder(given: list[float]) -> int | list[float]:
    return given[0] if len(given) == 1 and isinstance(given[0], int) else [float(rate) for rate in given]


if __name__ == "__main__":
    signals.leave(main())
