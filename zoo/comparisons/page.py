"""The answer of a comparison: a sentence, and a page of tables and figures that it rests on."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from zoo import files, manifest
from zoo.comparisons import words
from zoo.comparisons.folder import RATES, SEEDS, Folder
from zoo.comparisons.question import counted
from zoo.environment import from_here
from zoo.reports import curves, document, figures, judge, provenance, sound, statistics, verdicts
from zoo.reports.document import Figure, Heading, Paragraph, Table
from zoo.reports.groups import ENDED, Result, Results
from zoo.reports.judge import ACCURACY
from zoo.reports.statistics import Ratio

Block = Heading | Paragraph | Table | Figure
JSON = "answer.json"
HEADER = (
    *("learning rate", "runs", "difference [95 %]", "p (Holm)", "times the training time [95 %]", "times the memory"),
    "verdict",
)
COSTS = ("activation", "ms a step", "times [95 %]", "seconds a run", "peak MB", "times", "parameters")
LEVEL = 0.05  # of the interval of each time, for itself
BEFORE = (
    "Note: this comparison was looked at with {before} seeds before it got {now}. To add seeds until a difference "
    "shows finds one where there is none more often than 5 % of the time; the p-values are those of a single look."
)


class Answer:
    """What the runs of a comparison say.

    Args:
        folder: of the comparison, all of whose runs ended.
        mixed: whether runs that differ in more than they should are reported all the same, and that is said.

    Raises:
        UserError: for runs that aren't those of the comparison, or differ in data, backend, config or code.
    """

    def __init__(self, folder: Folder, mixed: bool = False):
        self.folder, self.question = folder, folder.question
        results = Results(folder.out / SEEDS)
        self.banners = provenance.check(results, mixed)
        (group,) = results.groups()
        tuned = [] if len(self.question.rates) == 1 else [Results(folder.out / RATES)]
        for each in tuned:
            self.banners += provenance.check(each, mixed)
        ladder = next((each.groups()[0].ladder for each in tuned), group.ladder)
        self.chosen, self.group = {name: group.chosen(name) for name in group.planned}, replace(group, ladder=ladder)
        self.verdicts = judge.judge({"": self.group.section})[""]
        self.score = self.group.score

    @cached_property
    def runs(self) -> list[Result]:
        return [run for runs in self.group.planned.values() for run in runs if run.state in ENDED]

    @cached_property
    def times(self) -> dict[str, Ratio]:
        """How many times as long as the first activation's a step of each takes, where machines allow to compare.

        Runs of one seed were trained one after the other, and are compared with each other: what else the machine did
        for hours is in both of them.
        """
        paces = {name: {run.seed: run.milliseconds_a_step() for run in runs} for name, runs in self._timed().items()}
        base, found = paces.get(self.group.baseline, {}), {}
        for name, each in paces.items():
            if shared := [seed for seed in each if seed in base]:
                mine, theirs = (np.array([by[seed] for seed in shared]) for by in (each, base))
                found[name] = statistics.ratio(mine, theirs, LEVEL)
        return found

    @cached_property
    def memory(self) -> dict[str, float]:
        runs = self._timed()
        base = runs.get(self.group.baseline)
        return {name: _peak(each) / _peak(base) for name, each in runs.items()} if base else {}

    def _timed(self) -> dict[str, list[Result]]:
        """The finished runs of each activation, if one kind of machine trained them all."""
        return self.group.runs if provenance.same_machine(self.runs) else {}

    @cached_property
    def sentence(self) -> str:
        return words.sentence(self.verdicts, self.score, len(self.question.seeds), self.times)

    def scores(self, name: str) -> list[float]:
        return list(self.group.section.arms[name].scores.values())

    def content(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        arms = self.group.section.arms
        return {
            "sentence": self.sentence,
            "score": self.score.name,
            "higher_is_better": self.score.higher,
            "baseline": self.group.baseline,
            "activations": {
                name: {
                    "activation": self.question.activations[name],
                    "learning_rate": float(self.chosen[name]),
                    "scores": dict(arm.scores),
                    "planned": arm.planned,
                    "lost": arm.lost,
                    "mean": fmean(self.scores(name)) if arm.scores else None,
                    "times_the_training_time": self.times[name]._asdict() if name in self.times else None,
                    "times_the_memory": self.memory.get(name),
                }
                for name, arm in arms.items()
            },
            "comparisons": [
                {"activation": each.comparison.arm, "verdict": each.status, "reason": each.reason, "p_holm": each.p}
                | {"difference": each.found._asdict() if each.found else None}
                for each in self.verdicts
            ],
        }

    @property
    def page(self) -> Path:
        return self.folder.out / "report" / "report.html"

    def write(self, command: Sequence[str]) -> None:
        """The page, as report.html and report.md, its tables and figures as files, and all of it as answer.json.

        Args:
            command: that the page says it was made by.

        Raises:
            UserError: where files of others are in their place.
        """
        out = document.folder(None, self.folder.out)
        manifest.check([out / JSON])
        before = self.folder.looked()
        blocks = list(self.blocks(shlex.join(map(from_here, command)), before))
        document.write(out, f"Comparison {self.folder.out.resolve().name}", blocks)
        files.write_json(out / JSON, self.content(), manifest.claim)

    def blocks(self, command: str, before: Sequence[int]) -> Iterator[Block]:
        """The page, made by a command, after looks with so many seeds."""
        yield Paragraph(self.sentence)
        yield from (Paragraph(f"Note: {banner}") for banner in self.banners)
        if before:
            counts = ", ".join(map(str, before))
            yield Paragraph(BEFORE.format(before=counts, now=len(self.question.seeds)))
        yield from self._edges()
        yield self._table()
        yield Paragraph(self._how())
        yield Heading("The differences")
        yield from self._differences()
        yield Heading("What more seeds would show")
        yield from words.more_seeds(self.verdicts, self.group.section, self.score, self._seconds_a_seed())
        if len(self.question.rates) > 1:
            yield Heading("Learning rates")
            yield self._rates()
        yield Heading("Training")
        yield from self._training()
        yield Heading("What it costs")
        yield self._costs()
        yield Heading("Where these runs were made")
        if command:
            yield Paragraph(f"Made by `{command}`.")
        yield from provenance.recorded(self.runs)

    def _edges(self) -> Iterator[Paragraph]:
        """An activation that is best at the end of the ladder may be better beyond it."""
        if found := sound.beyond("learning rate", self.chosen, self.group.ladder):
            yield Paragraph(f"Note: {found}: --rates takes a list of others.")

    def _table(self) -> Table:
        told = {verdict.comparison.arm: verdict for verdict in self.verdicts}
        scale = self.score.scale
        factor = "%" if scale.factor == 100 else scale.unit
        rows = []
        for name, planned in self.group.planned.items():
            found, verdict = self.scores(name), told.get(name)
            cells = ["", "", "what the others are compared with"]
            if verdict:
                difference = verdict.found
                known = difference and verdict.status in words.JUDGED
                interval = f" {scale.between(difference.low, difference.high)}" if difference and known else ""
                cells = [
                    scale(difference.mean) + interval if difference else "",
                    f"{verdict.p:.2g}",
                    self._verdict(verdict.status),
                ]
            absent = self.group.absent(name)
            rows.append(
                [
                    name,
                    sound.spread(found, scale.factor, scale.digits) if found else "",
                    self.chosen[name],
                    f"{len(found)} of {len(planned)}" + (f", {absent}" if absent else ""),
                    *cells[:2],
                    str(self.times.get(name, "")),
                    f"{self.memory[name]:.2f}" if name in self.memory else "",
                    cells[2],
                ]
            )
        measured = f"test {self.score.title}{f', {factor}' if factor else ''}"
        caption = (
            f"Mean and standard deviation over seeds, and differences from {self.group.baseline}{scale.after(' in ')}"
        )
        return Table("activations", caption, ("activation", measured, *HEADER), rows)

    def _verdict(self, status: str) -> str:
        if status in ("above", "below"):
            return "better" if self.score.better(status) else "worse"
        return "no difference seen" if status == "open" else verdicts.STATES[status]

    def _how(self) -> str:
        asked = self.question
        epochs = self.folder.config.training.epochs
        return (
            f"How: {asked.effort()}. Then each was trained for {counted(epochs, 'epoch')} with {len(asked.seeds)} "
            "fresh seeds, the same for all, and measured once, on test data that had a part in no choice."
        )

    def _differences(self) -> Iterator[Block]:
        section, score = self.group.section, self.score
        yield verdicts.explained({"": section}, named=True)
        errors = {}
        if score == ACCURACY:
            errors = verdicts.image_errors(section, self.group.right, score.scale, sound.images(self.group))
        title, what = self.group.title, f"test {score.title}"
        yield from verdicts.blocks("activations", title, section, self.verdicts, score.scale, errors, what)

    def _rates(self) -> Figure:
        key, factor = self.score.of("validation"), self.score.scale.factor
        arms = {
            name: {
                float(rate): np.array([factor * run.metric(key) if run.state == "finished" else np.nan for run in runs])
                for rate, runs in values.items()
            }
            for name, values in self.group.ladder.items()
        }
        known = np.concatenate([each for values in arms.values() for each in values.values()])
        worst = np.nanmin(known) if self.score.higher else np.nanmax(known)
        what = f"validation {self.score.title}"
        drawing = figures.against_rate({self.group.title: arms}, "learning rate", what, float(worst))
        caption = f"{_upper(what)} after {self.question.rate_epochs} epochs against the learning rate; a cross, at "
        return Figure(
            "rates", f"{caption}the worst that was measured, is a run that did not finish. A dot is a run.", drawing
        )

    def _training(self) -> Iterator[Figure]:
        group, score = self.group, self.score
        for column, what in (
            (sound.loss_column(group), sound.loss_name(group)),
            (f"val_{score.name}", f"validation {score.title}"),
        ):
            if found := curves.by_epoch([group], column):
                lost = curves.lost_by_epoch([group], column)
                drawing = figures.against_epoch(found, what, lost=lost)
                yield Figure(f"training-{column}", f"{_upper(what)} against epoch: {curves.BAND}.", drawing)

    def _costs(self) -> Table:
        rows = [
            [
                name,
                f"{sound.pace(runs):.2f}",
                str(self.times.get(name, "")),
                f"{median(run.metric('seconds') for run in runs):.1f}",
                f"{_peak(runs):.0f}",
                f"{self.memory[name]:.2f}" if name in self.memory else "",
                f"{runs[0].metric('parameters'):,}",
            ]
            for name, runs in self.group.runs.items()
        ]
        caption = (
            f"Medians over the runs that finished. Times are those of {self.group.baseline}: of a step, the geometric "
            "mean over seeds with a 95 % interval, which has a 1 in it where they aren't told apart. Memory is that of "
            "the process on a CPU, of the device on a GPU. Times hold for the machine as it was"
        )
        return Table("costs", caption, COSTS, rows)

    def _seconds_a_seed(self) -> float:
        """Of a run with each activation."""
        return sum(median(run.metric("seconds") for run in runs) for runs in self.group.runs.values())


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _peak(runs: list[Result]) -> float:
    return median(run.metric("peak_memory_mb") for run in runs)
