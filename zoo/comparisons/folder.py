"""The folder of a comparison: what it asks, its two sweeps and their runs, and its report."""

import filecmp
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zoo import files, folders, manifest
from zoo.comparisons.question import Question, choose, counted
from zoo.config.schema import Config
from zoo.environment import SCHEMA
from zoo.errors import UserError
from zoo.reports import provenance
from zoo.reports.groups import Result, Results
from zoo.sweeps import grid
from zoo.sweeps.cluster import Cluster
from zoo.sweeps.folder import SweepFolder
from zoo.sweeps.work import train
from zoo.training.progress import Cost, duration

RECORD, BASE, RATES, SEEDS = "compare.json", "base.json", "rates", "seeds"
IGNORED = ("$schema", "notes")  # of a config
DONE = {"finished", "diverged"}  # states of runs


def begun_on(out: Path) -> str | None:
    """The backend of the comparison in a folder, where there is one."""
    return files.read_json(out / RECORD, "backend")["backend"] if (out / RECORD).exists() else None


class Folder:
    """Where a comparison lies: `compare.json`, and the sweeps `rates.json` and `seeds.json` with a folder each.

    Args:
        out: the folder.
        config: the network, its data and how it is trained.
        question: what is asked of it.
        backend: that its runs are trained on.
        carried: files that the config names as lying in the folder, where they are to be copied from.

    Raises:
        UserError: where the folder holds anything else, or a comparison that asks something else.
    """

    def __init__(self, out: Path, config: Config, question: Question, backend: str, carried: Sequence[Path] = ()):
        self.out, self.config, self.question, self.backend, self.carried = out, config, question, backend, carried
        self.record: dict[str, Any] = {}
        if (out / RECORD).exists():
            self.record = files.read_json(out / RECORD, "question", "base", "backend", "costs", "looks")
            self._check_same()
        elif out.exists():
            self._check_free()

    def _check_free(self) -> None:
        mine = rf"{re.escape(manifest.MANIFEST)}|{folders.unfinished([RECORD])}"
        if not self.out.is_dir() or any(not re.fullmatch(mine, path.name) for path in self.out.iterdir()):
            raise UserError(f"{self.out}: the folder is not empty and holds no comparison; give another --out")

    def _check_same(self) -> None:
        then, now = self.record["question"], self.question.model_dump()
        if not isinstance(then.get("seeds"), list):
            raise UserError(f"{self.out / RECORD}: not what zoo.compare writes: its question has no seeds")
        seeds = then["seeds"], now["seeds"]
        base = self.config.resolved(self.out)
        pairs = [(f"the config's {key}", self.record["base"].get(key), base[key]) for key in base if key not in IGNORED]
        pairs += [(key.replace("_", " "), then.get(key), now[key]) for key in now if key != "seeds"]
        pairs.append(("the backend", self.record["backend"], self.backend))
        for what, before, asked in pairs:
            if before != asked or (isinstance(asked, dict) and list(before) != list(asked)):
                raise UserError(
                    f"{self.out}: this comparison was begun with {what}: {_short(before, asked)}, and not with "
                    f"{_short(asked, before)}; give another --out"
                )
        for path in self.carried:
            if (self.out / path.name).exists() and not filecmp.cmp(path, self.out / path.name, shallow=False):
                raise UserError(f"{self.out / path.name}: this comparison was begun with another one; give another out")
        if seeds[0] != seeds[1][: len(seeds[0])]:
            raise UserError(
                f"{self.out}: this comparison has {len(seeds[0])} seeds, which can grow and not become "
                f"{len(seeds[1])}; give another --out"
            )

    @property
    def costs(self) -> dict[str, Cost]:
        """What a run with each activation takes, where that was measured."""
        return {label: Cost(*cost) for label, cost in self.record.get("costs", {}).items()}

    def begin(self, costs: Mapping[str, Cost]) -> None:
        """Writes down what is asked."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.out}: no folder can be made here: {error.strerror}") from None
        self._write(costs={label: list(cost) for label, cost in costs.items()})
        for path in self.carried:
            if not (self.out / path.name).exists():
                files.write_whole(self.out / path.name, partial(shutil.copyfile, path), manifest.claim)
        files.write_own_json(self.out / BASE, self.record["base"])
        files.write_own_json(self.out / f"{RATES}.json", self.question.sweep_of_rates(BASE))

    def _write(self, **news: Any) -> None:
        asked = {
            "question": self.question.model_dump(),
            "base": self.config.resolved(self.out),
            "backend": self.backend,
        }
        self.record = {"schema": SCHEMA, "looks": []} | self.record | asked | news
        files.write_own_json(self.out / RECORD, self.record)

    def looked(self) -> list[int]:
        """With how many seeds an answer was given before this one, which is written down, too."""
        count = len(self.question.seeds)
        before = [seeds for seeds in self.record["looks"] if seeds < count]
        if count not in self.record["looks"]:
            self._write(looks=[*self.record["looks"], count])
        return before

    def seconds_left(self, costs: Mapping[str, Cost]) -> float:
        """Of all runs that aren't done, by what one takes."""
        return sum((count - done) * costs[label].of(epochs) for label, count, done, epochs in self._runs())

    def _runs(self) -> Iterator[tuple[str, int, int, int]]:
        """For each activation and sweep: how many runs there are to be, how many are done, and their epochs."""
        asked = self.question
        rates = len(asked.rates) * len(asked.rate_seeds) if len(asked.rates) > 1 else 0
        sweeps = ((RATES, rates, asked.rate_epochs), (SEEDS, len(asked.seeds), self.config.training.epochs))
        for name, count, epochs in sweeps:
            done: Counter[str] = Counter()
            if (self.out / f"{name}.json").exists() and count:
                _, planned = grid.load(self.out / f"{name}.json")
                sweep = SweepFolder(self.out / name, planned, None)
                done = Counter(run.labels["activation"] for run in planned if sweep.is_done(run))
            yield from ((label, count, done[label], epochs) for label in asked.activations)

    def plan(self, costs: Mapping[str, Cost]) -> str:
        """What is to be done, and how long it takes."""
        asked, labels = self.question, ", ".join(self.question.activations)
        epochs = self.config.training.epochs
        stages = [f"{len(asked.seeds)} fresh seeds of {counted(epochs, 'epoch')} each, judged on test data"]
        if len(asked.rates) > 1:
            share = "the same" if asked.rate_epochs == epochs else f"not {epochs}"
            each = f"{counted(len(asked.rate_seeds), 'run')} of {counted(asked.rate_epochs, 'epoch')} each, {share}"
            stages.insert(0, f"the learning rates {asked.said_rates} on validation data ({each})")
        every, done = (sum(column) for column in list(zip(*self._runs(), strict=True))[1:3])
        left = duration(self.seconds_left(costs))
        return (
            f"{labels}: each with {', then '.join(stages)}; {every - done} of {every} runs are left, about {left} of "
            "training, by steps that were measured"
        )

    def train(self, data_dir: Path | None, deadline: float | None, nodes: Cluster | None) -> bool:
        """Trains what is missing of the rates, then of the seeds; whether an answer can be given.

        Runs of seeds that failed keep none from being given, those of rates do: activations would be tuned unequally.
        """
        asked = self.question
        if len(asked.rates) > 1 and self._sweep(RATES, data_dir, deadline, nodes) - DONE:
            return False
        files.write_own_json(self.out / f"{SEEDS}.json", asked.sweep_of_seeds(BASE, self.chosen()))
        return not self._sweep(SEEDS, data_dir, deadline, nodes) - DONE - {"failed"}

    def _sweep(self, name: str, data_dir: Path | None, deadline: float | None, nodes: Cluster | None) -> set[str]:
        """Trains what is missing of a sweep, and returns the states of its runs."""
        path = self.out / f"{name}.json"
        described, planned = grid.load(path)
        sweep = SweepFolder(self.out / name, planned, data_dir)
        content = described.model_dump(by_alias=True, exclude={"schema_", "comparisons"})
        sweep.prepare(content | {"plans": grid.plans(path, described), "backend": self.backend, "file": name}, planned)
        train(sweep, self.backend, None, deadline, nodes)
        sweep.say_failures()
        return set(map(sweep.state, planned))

    def has_failures(self) -> bool:
        """Whether a run failed."""
        return any(path for name in (RATES, SEEDS) for path in (self.out / name / "logs").glob("*.failed.json"))

    def chosen(self) -> dict[str, str]:
        """The learning rate of each activation, as its label."""
        asked = self.question
        if len(asked.rates) == 1:
            return dict.fromkeys(asked.activations, str(asked.rates[0]))
        results = Results(self.out / RATES)
        provenance.check_runs(results)
        (group,) = results.groups()
        key, sign = group.score.of("validation"), 1 if group.score.higher else -1

        def scores(runs: Sequence[Result]) -> list[float]:
            return [sign * run.metric(key) for run in runs if run.state == "finished"]

        tried = {name: {rate: scores(runs) for rate, runs in values.items()} for name, values in group.ladder.items()}
        return choose(tried)


def _short(value: Any, other: Any) -> str:
    """A value, of an object what another one has not."""
    if isinstance(value, dict) and isinstance(other, dict) and list(value) == list(other):
        value = [f"{key} {json.dumps(each)}" for key, each in value.items() if each != other[key]]
    text = ", ".join(map(str, value)) if isinstance(value, dict | list) else str(value)
    return text if len(text) < 120 else f"{text[:100]}..."
