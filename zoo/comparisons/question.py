"""What a comparison asks, and the two sweeps that answer it: of learning rates, then of seeds."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Annotated, Any

from pydantic import Field, model_validator

from zoo.config.schema import Activation, Config, Count, Positive, Strict
from zoo.errors import ConfigError, UserError
from zoo.reports.groups import TWINS
from zoo.sweeps.grid import file_name

RATE = "training.optimizer.learning_rate"
RATES, RATE_SEEDS, SEEDS = 5, 3, 10  # how many of each by default
MOST_RATES, MOST_SEEDS = 40, 10_000
STEP = 10**0.5  # between two rates
ADAPTIVE = ("prelu", "swish", "method1")  # compared by default, beside the adaptive twin of the first
Spec = dict[str, Any] | list[dict[str, Any]]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Tried = Mapping[str, Mapping[str, Sequence[float]]]  # scores of runs that finished, by activation and rate


class Question(Strict):
    """Which activations are compared in one network, and how.

    Attributes:
        activations: what a config has as its activation, by label; the first is what the others are compared with.
        rates: learning rates that each is tried with, rising.
        rate_epochs: of the runs that choose the rate.
        rate_seeds: of these runs, at each rate.
        seeds: of the runs that are judged.
    """

    activations: dict[str, Spec] = Field(min_length=2)
    rates: list[Positive] = Field(min_length=1)
    rate_epochs: Count
    rate_seeds: list[Seed] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)

    @model_validator(mode="after")
    def _folders_differ(self):
        names: dict[str, str] = {}
        for label in self.activations:
            if (other := names.setdefault(file_name(label), label)) != label:
                raise ValueError(
                    f"{other} and {label} are alike as names of folders, which have letters A to Z and digits"
                )
        return self

    @property
    def baseline(self) -> str:
        return next(iter(self.activations))

    @property
    def others(self) -> list[str]:
        return list(self.activations)[1:]

    def sweep_of_rates(self, base: str) -> dict[str, Any]:
        """Each activation at each rate, without a look at test data."""
        fixed = {"training.epochs": self.rate_epochs, "metrics.report_batch": None, "metrics.test": False}
        return self._sweep(base, fixed, {"activation": self._choices(), RATE: self.rates, "seed": self.rate_seeds})

    def sweep_of_seeds(self, base: str, chosen: Mapping[str, str]) -> dict[str, Any]:
        """Each activation at the rate that was chosen for it, by its label.

        The activations of a seed follow one another, so that the machine is the same for them, as far as it can be.
        """
        rates = [rate for rate in self.rates if str(rate) in chosen.values()]
        others = {label: [str(rate) for rate in rates if str(rate) != chosen[label]] for label in self.activations}
        exclude = [{"activation": [label], RATE: each} for label, each in others.items() if each]
        axes: dict[str, list[Any]] = {"seed": self.seeds, "activation": self._choices(), RATE: rates}
        return self._sweep(base, {"metrics.report_batch": None}, axes) | {"outputs": ["sound"], "exclude": exclude}

    def _sweep(self, base: str, fixed: dict[str, Any], axes: dict[str, list[Any]]) -> dict[str, Any]:
        pairs = [[label, self.baseline] for label in self.others]
        plan = {"secondary": pairs, "baseline": self.baseline, "tuned": RATE, "effort": self.effort()}
        return {"base": base, "set": fixed, "axes": axes, "comparisons": plan}

    def _choices(self) -> list[dict[str, Any]]:
        return [{"label": label, "value": value} for label, value in self.activations.items()]

    @property
    def said_rates(self) -> str:
        return ", ".join(f"{rate:g}" for rate in self.rates)

    def effort(self) -> str:
        """How the rate of each activation is chosen."""
        if len(self.rates) == 1:
            return f"all activations have the same learning rate, {self.rates[0]:g}"
        runs = f"{counted(len(self.rate_seeds), 'run')} of {counted(self.rate_epochs, 'epoch')} each"
        tried = f"each activation was tried with the same {len(self.rates)} learning rates ({self.said_rates}), {runs}"
        if len(self.rate_seeds) == 1:
            return f"{tried}, and has the one that was best on validation data"
        return (
            f"{tried}, and has the one with the best mean on validation data; of rates within a standard error of "
            "that, the one that is as good for most activations"
        )


def counted(count: int, what: str) -> str:
    """A number of things, in words."""
    return f"{count} {what}{'s' * (count != 1)}"


def ask(
    config: Config,
    activations: Iterable[str | Mapping[str, Any]] | Mapping[str, Any] | None = None,
    rates: int | Sequence[float] = RATES,
    rate_seeds: int = RATE_SEEDS,
    rate_epochs: int | None = None,
    seeds: int = SEEDS,
) -> Question:
    """The question, with defaults where nothing is said.

    Args:
        config: the network, its data and how it is trained.
        activations: names, specs with a name, or specs by label; by default the config's own, or ReLU, and
            adaptive ones.
        rates: how many learning rates around the config's, half a decade apart, or which.
        rate_seeds: how many runs each rate is tried with.
        rate_epochs: of a run that chooses the rate; by default half of the config's, or all where its schedule counts
            epochs.
        seeds: how many fresh ones.

    Raises:
        UserError: for too few activations, two of one name, too many rates or seeds, or rates without validation data.
    """
    named = dict(default(config) if activations is None else _labelled(activations))
    if len(named) < 2:
        raise UserError(f"a comparison needs two activations or more; found {', '.join(named) or 'none'}")
    if isinstance(rates, int) and rates > MOST_RATES:
        raise UserError(f"{rates} learning rates: expected {MOST_RATES} at most, half a decade apart, or which")
    for count, what in ((rate_seeds, "runs of each rate"), (seeds, "seeds")):
        if not 1 <= count <= MOST_SEEDS:
            raise UserError(f"{count} {what}: expected 1 to {MOST_SEEDS:,}")
    tried = ladder(config.training.optimizer.learning_rate, rates) if isinstance(rates, int) else sorted(set(rates))
    if len(tried) > 1 and not config.dataset.validation:
        raise ConfigError("dataset.validation: 0 leaves no data to choose learning rates on; a share such as 0.1 does")
    training = config.training
    half = training.epochs if training.schedule.name == "steps" else (training.epochs + 1) // 2
    used = [(training.seeds[0] + i) % 2**32 for i in range(rate_seeds)]
    fresh = list(itertools.islice((seed for seed in itertools.count() if seed not in used), seeds))
    epochs = rate_epochs or half
    try:
        return Question(activations=named, rates=tried, rate_epochs=epochs, rate_seeds=used, seeds=fresh)
    except ValueError as error:
        raise UserError(_first_of(error)) from None


def _first_of(error: ValueError) -> str:
    """What pydantic found first."""
    found = getattr(error, "errors", lambda: [{"loc": (), "msg": str(error)}])()[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}".removeprefix(": ").replace("Value error, ", "")


def ladder(rate: float, count: int) -> list[float]:
    """So many rates around one, half a decade apart; above it, where there is an odd one out."""
    steps = range(-((count - 1) // 2), count // 2 + 1)
    return [rate if step == 0 else float(f"{rate * STEP**step:.3g}") for step in steps]


def default(config: Config) -> dict[str, Spec]:
    """The config's own activation, its adaptive twin, and others; ReLU first where its own is adaptive already."""
    own = {"configured": config.resolved()["activation"]}
    name = "configured"
    if isinstance(config.activation, Activation):
        name = config.activation.name
        own = {name: config.activation.options()}
    adaptive = {*TWINS, *ADAPTIVE, "method2", "mixture", "adaptive", "configured"}
    if name in adaptive:
        return (
            {"relu": {"name": "relu"}} | own | {each: {"name": each} for each in ("arelu", *ADAPTIVE) if each != name}
        )
    twin = next((twin for twin, fixed in TWINS.items() if fixed == name), None)
    twins = {twin: {"name": twin}} if twin else {f"adaptive {name}": {"name": "adaptive", "function": name}}
    return own | twins | {each: {"name": each} for each in ADAPTIVE}


def _labelled(activations: Iterable[str | Mapping[str, Any]] | Mapping[str, Any]) -> Iterable[tuple[str, Spec]]:
    if isinstance(activations, Mapping):
        for label, spec in activations.items():
            yield str(label), {"name": spec} if isinstance(spec, str) else spec
        return
    seen: list[str] = []
    for each in activations:
        label, spec = _of_word(each) if isinstance(each, str) else (str(each.get("name")), dict(each))
        if label in seen:
            raise UserError(f"two activations are called {label}; give one a label: LABEL={label}")
        seen.append(label)
        yield label, spec


def _of_word(word: str) -> tuple[str, Spec]:
    """Of NAME, LABEL=NAME or LABEL=JSON."""
    label, equals, text = word.partition("=")
    if not equals:
        return word, {"name": word}
    if not label or not text:
        raise UserError(f"{word[:80]!r}: expected an activation as NAME, LABEL=NAME or LABEL=JSON")
    if not text.startswith(("{", "[")):
        return label, {"name": text}
    try:
        return label, json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{word[:80]!r}: not valid JSON: {error}") from None


def choose(tried: Tried) -> dict[str, str]:
    """The rate of each activation: of those that are as good as its best one, that which most activations share.

    Rates are as good as the best where their means lie within one standard error of the difference (Breiman et al.,
    1984, choose trees so), by the median of the spreads that the runs of a rate have. The mean of a few runs can't tell
    such rates apart, and two activations at different rates differ by more than the activation. One run a rate has no
    spread: each activation then has its best rate.

    ```python
    runs = {"relu": {"0.01": [0.80, 0.82], "0.1": [0.81, 0.82]}, "swish": {"0.01": [0.85, 0.86], "0.1": [0.70, 0.72]}}
    choose(runs)  # {"relu": "0.01", "swish": "0.01"}
    ```

    Args:
        tried: scores on validation data, more is better. Rates that lost runs have fewer, and come behind the others.
    """
    behind = {name: _as_good(values) for name, values in tried.items()}
    shared = Counter(rate for rates in behind.values() for rate in rates)
    regret = {rate: fmean(rates[rate] for rates in behind.values() if rate in rates) for rate in shared}
    return {name: min(rates, key=lambda rate: (-shared[rate], regret[rate])) for name, rates in behind.items()}


def _as_good(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The rates that are as good as the best, and how far behind it each is."""
    count = max(map(len, values.values()))
    whole = {rate: scores for rate, scores in values.items() if len(scores) == count}
    if not count:
        return dict.fromkeys(whole, 0.0)
    best = max(map(fmean, whole.values()))
    error = median(map(stdev, whole.values())) * math.sqrt(2 / count) if count > 1 else 0.0
    return {rate: best - fmean(scores) for rate, scores in whole.items() if best - fmean(scores) <= error}
