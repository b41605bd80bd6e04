"""The comparison after a search: the best trial of each label, trained again, with the zoo's statistics."""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuner.searches.space import FINAL, LARGER, Search, describe
from zoo import files
from zoo.reports import judge, verdicts
from zoo.reports.document import Figure, Paragraph, Table
from zoo.reports.groups import count_classes
from zoo.reports.judge import POINTS, R2, Arm, Comparison, Scale, Section

if TYPE_CHECKING:
    from tuner.searches.folder import SearchResults, Trial

NATS = Scale(1, 4, "nats")
OWN_UNIT = Scale(1, 4, "the targets' unit")
TEST, TEST_R2 = "test_accuracy", "test_r2"
EXPLAINED = (
    "The best trial of each {by}, trained again with {count} seeds that the search did not use, which removes the "
    "selection bias of the search. The others are compared with the first {by}."
)


class Judged(NamedTuple):
    """The comparison as the judge takes it: the section, the name of its scores, and the runs of each label."""

    section: Section
    score: str
    runs: Mapping[str, list["Trial"]]

    @property
    def scale(self) -> Scale:
        scales = {"val_loss": NATS, TEST: POINTS, "val_accuracy": POINTS, TEST_R2: R2, "val_r2": R2}
        return scales.get(self.score, OWN_UNIT)

    @property
    def is_sound(self) -> bool:
        """Whether it was measured on images that chose nothing."""
        return self.score in (TEST, TEST_R2)


def judged(found: "SearchResults") -> Judged:
    """The labels as arms, scored by accuracy on test images, which were not used to choose anything.

    Runs of version 0.1.0 have the objective only, on the images that were used to choose: they get no verdict.
    """
    search = found.search
    assert search.contrast
    runs = _finals(found)
    every = [trial for trials in runs.values() for trial in trials]
    measured = {trial.name: _metrics(found, trial) for trial in every if trial.outcome.value is not None}
    sound = [key for key in (TEST, TEST_R2) if measured and all(key in metrics for metrics in measured.values())]
    score = sound[0] if sound else search.objective
    arms = {}
    for label, trials in runs.items():
        kept = {t.point[FINAL + "seed"]: t for t in trials if t.outcome.value is not None}
        scores = {seed: float(measured[t.name][score] if sound else t.outcome.value or 0.0) for seed, t in kept.items()}
        losses = [measured[t.name]["test_loss"] for t in kept.values() if "test_loss" in measured[t.name]]
        entropy = statistics.fmean(losses) if losses else None
        arms[label] = Arm(scores, len(search.contrast.seeds), len(trials) - len(kept), entropy)
    first, *others = runs
    plan = [Comparison(label, first) for label in others]
    confounded = {each: why for each in plan if (why := _confounded(found, each, bool(sound)))}
    classes = _classes(found) if score in (TEST, "val_accuracy") else None
    r2 = score in (TEST_R2, "val_r2")
    return Judged(Section(arms, plan, first, classes, confounded=confounded, r2=r2), score, runs)


def _finals(found: "SearchResults") -> dict[str, list["Trial"]]:
    """The runs of each label's best trial; not those of a trial that was the best before the search grew."""
    search, by = found.search, _by(found)
    best: dict[str, str] = {}
    for trial in found.ranking:
        best.setdefault(str(trial.point.get(by)), trial.name)
    runs: dict[str, list[Trial]] = {str(label): [] for label in search.labels(by)}
    for trial in found.finals:
        label = str(trial.point[by])
        if trial.point[FINAL + "of"] == best.get(label):
            runs[label].append(trial)
    return runs


def _metrics(found: "SearchResults", trial: "Trial") -> dict[str, Any]:
    path = found.folder.run(trial.name) / "metrics.json"
    return files.read_json(path, "status") if path.exists() else {}


def _classes(found: "SearchResults") -> int | None:
    """How many classes a guess chooses from."""
    folders = [found.folder.run(trial.name) for trial in [*found.finals, *found.trials.values()]]
    return next(filter(None, map(count_classes, folders)), None)


def _confounded(found: "SearchResults", comparison: Comparison, sound: bool) -> str:
    """What two labels differ in, besides the label."""
    search = found.search
    assert search.contrast
    sides = [
        [trial for trial in found.trials.values() if str(trial.point.get(search.contrast.by)) == label]
        for label in comparison[:2]
    ]
    reasons = []
    if len(sides[0]) != len(sides[1]):
        medians = [_medians(search, side) for side in sides]
        apart = [
            f"median {name} {medians[0][name]:.3g} and {medians[1][name]:.3g}"
            for name in medians[0]
            if name in medians[1]
        ]
        counts = f"{len(sides[0])} trials for {comparison.arm} and {len(sides[1])} for {comparison.reference}"
        reasons.append(f"unequal effort: {', '.join([counts, *apart])}")
        runs = _finals(found)
        best = [next(iter(runs[label]), None) for label in comparison[:2]]
        if others := [
            name
            for name in _choices(search)
            if best[0] and best[1] and best[0].point.get(name) != best[1].point.get(name)
        ]:
            reasons.append(f"their best trials differ in {', '.join(others)} as well")
    if not sound:
        reasons.append(f"judged on the validation images used to choose{_noise(found)}")
    return "; ".join(reasons)


def _choices(search: Search) -> list[str]:
    """The other entries with choices that are always active."""
    by = search.contrast.by if search.contrast else ""
    return [entry.name for entry in search.space if entry.choice and not entry.when and entry.name != by]


def _medians(search: Search, trials: list["Trial"]) -> dict[str, float]:
    """The median of each entry on a logarithmic axis, such as a learning rate."""
    names = [entry.name for entry in search.space if entry.log]
    values = {name: [t.point[name] for t in trials if name in t.point] for name in names}
    return {name: statistics.median(each) for name, each in values.items() if each}


def _noise(found: "SearchResults") -> str:
    """The standard error of an accuracy on the validation images, if a run recorded their number."""
    folders = [found.folder.run(trial.name) for trial in [*found.finals, *found.trials.values()]]
    for folder in folders:
        if found.search.objective == "val_accuracy" and (folder / "config.json").exists():
            images = _held_out(folder)
            best = max((t.outcome.value for t in found.finals if t.outcome.value is not None), default=0.5)
            error = (best * (1 - best) / images) ** 0.5
            return f" ({images:,} images, a standard error of {100 * error:.1f} points)"
    return ""


def _held_out(folder: Path) -> int:
    """How many images a run held out; of version 0.1.0, which counted none, what its config asked for."""
    path = folder / "environment.json"
    counted = files.read_json(path).get("images", {}).get("validation") if path.exists() else None
    asked = files.read_json(folder / "config.json", "dataset")["dataset"]
    return counted or round((asked["limit"] or 50_000) * asked["validation"])


def summary(found: "SearchResults") -> Paragraph:
    by, made = _by(found), judged(found)
    decided = judge.judge({by: made.section})
    return verdicts.summary(decided, {by: made.scale})


def _by(found: "SearchResults") -> str:
    assert found.search.contrast
    return found.search.contrast.by


def blocks(found: "SearchResults") -> Iterator[Paragraph | Table | Figure]:
    search, by, made = found.search, _by(found), judged(found)
    assert search.contrast
    decided = judge.judge({by: made.section})[by]
    yield Paragraph(EXPLAINED.format(by=by, count=len(search.contrast.seeds)))
    yield verdicts.explained({by: made.section}, named=True)
    yield _table(found, made)
    what = made.score.replace("_", " ").replace("val ", "validation ")
    yield from verdicts.blocks("contrast", by, made.section, decided, made.scale, {}, what)
    yield Paragraph(_in_words(search, made, decided))


def _table(found: "SearchResults", made: Judged) -> Table:
    search, by = found.search, _by(found)
    rows = []
    for label, runs in made.runs.items():
        arm = made.section.arms[label]
        known = list(arm.scores.values())
        mean = f"{statistics.fmean(known):.4f}" if known else ""
        spread = f" ± {statistics.stdev(known):.4f}" if len(known) > 1 else ""
        tried = [trial for trial in found.trials.values() if str(trial.point.get(by)) == label]
        epochs = sum(len(trial.outcome.curve) for trial in tried)
        lost = [run.outcome.status for run in runs if run.outcome.value is None]
        states = [f"{len(known)} of {arm.planned}", *(f"{lost.count(state)} {state}" for state in dict.fromkeys(lost))]
        settings = describe(search.labelled(runs[0].point)) if runs else ""
        rows.append([label, str(len(tried)), str(epochs), ", ".join(states), mean + spread, settings])
    header = [by, "trials", "epochs tried", "runs", made.score, "best trial's settings"]
    return Table("contrast", f"{made.score} by {by}, mean ± std, and the effort behind each", header, rows)


def _in_words(search: Search, made: Judged, decided: list[judge.Verdict]) -> str:
    """Which labels are better than the first one, in words."""
    higher = made.is_sound or made.score in LARGER
    better = {"above": "better" if higher else "worse", "below": "worse" if higher else "better"}
    better["open"] = "not shown to differ"
    groups: dict[str, list[str]] = {}
    for verdict in decided:
        groups.setdefault(better.get(verdict.status, "without a verdict"), []).append(verdict.comparison.arm)
    parts = [f"{', '.join(labels)} {words}" for words, labels in groups.items()]
    return f"Against {made.section.baseline}: {'; '.join(parts)}."
