"""How often the judge is wrong, and how often it finds what is there, by simulation: `python benchmarks/judge.py`.

Simulated reports have the plan of a sweep over the report's eight activations: each against ReLU, and ATanh and
ASigmoid against their fixed twins, nine comparisons. Scores are normal. `--reports N` is how many each line has.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import tables
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from zoo import backend
from zoo.environment import describe_environment
from zoo.reports import statistics

backend.choose()

from zoo.reports import judge
from zoo.reports.judge import Arm, Comparison, Section

NAMES = ("relu", "sigmoid", "asigmoid", "tanh", "atanh", "arelu", "method1", "method2")
PLAN = (
    *(Comparison(name, "relu") for name in NAMES[1:]),
    Comparison("asigmoid", "sigmoid"),
    Comparison("atanh", "tanh"),
)
MEAN, SPREAD = 0.6, 0.01  # of accuracies
UNEQUAL = 2.5  # a ratio of two spreads, the largest seen in LeNet on 10,000 images of CIFAR-10


def section(random, seeds: int, shifts=None, plan=PLAN, losing: bool = False, unequal: bool = False) -> Section:
    """Arms whose means lie `shifts` standard deviations apart, of so many seeds each.

    Args:
        losing: whether runs diverge, with a probability of 0.5 where they would end below -0.75 standard deviations.
        unequal: whether every second arm varies more.
    """
    arms = {}
    for i, name in enumerate(NAMES):
        z = random.normal(size=seeds) * (UNEQUAL if unequal and i % 2 else 1) + (shifts or {}).get(name, 0.0)
        kept = ~((z < -0.75) & (random.random(seeds) < 0.5)) if losing else np.ones(seeds, bool)
        scores = {seed: MEAN + SPREAD * z[seed] for seed in np.flatnonzero(kept)}
        arms[name] = Arm(scores, seeds, int(np.sum(~kept)))
    return Section(arms, plan, "relu", classes=10)


def share(count: int, of: int) -> dict:
    low, high = statistics.rate(count, of)
    return {"reports": of, "share": round(count / of, 4), "low": round(low, 4), "high": round(high, 4)}


def false_positives(random, reports: int, seeds: int, **how) -> dict:
    """The share of reports without any effect that call some difference beyond chance; and of comparisons without a
    verdict."""
    wrong, silent = 0, 0
    for _ in range(reports):
        found = judge.judge({"net": section(random, seeds, **how)})["net"]
        wrong += any(verdict.status in ("above", "below") for verdict in found)
        silent += sum(verdict.status != "open" for verdict in found)
    return share(wrong, reports) | {"without_verdict": round(silent / reports / len(PLAN), 4)}


def held(random, reports: int, seeds: int) -> dict:
    """The share of reports whose intervals hold every true difference, which are drawn anew for each report."""
    whole = 0
    for _ in range(reports):
        shifts = dict(zip(NAMES, random.normal(size=len(NAMES)), strict=True))
        found = judge.judge({"net": section(random, seeds, shifts)})["net"]
        truth = [SPREAD * (shifts[v.comparison.arm] - shifts[v.comparison.reference]) for v in found]
        whole += all(v.found.low <= true <= v.found.high for v, true in zip(found, truth, strict=True))
    return share(whole, reports)


def found(random, reports: int, seeds: int, size: float, plan=PLAN) -> dict:
    """How often an effect of `size` standard deviations in method 1 alone is found, and how often Student's t-test at
    the level of Holm's first step would find it, by its noncentral distribution."""
    times = 0
    for _ in range(reports):
        verdicts = judge.judge({"net": section(random, seeds, {"method1": size}, plan)})["net"]
        times += next(v.status == "above" for v in verdicts if v.comparison.arm == "method1")
    free, level = 2 * seeds - 2, judge.LEVEL / len(plan)
    theory = stats.nct.sf(stats.t.isf(level / 2, free), free, size * np.sqrt(seeds / 2))
    return share(times, reports) | {"theory": round(float(theory), 4)}


def measure(reports: int) -> dict:
    random = np.random.default_rng(0)
    primary = (Comparison("method1", "relu", True),)
    detectable = {n: statistics._detectable(n, n, judge.LEVEL / len(PLAN), False) for n in (6, 10)}
    return {
        "false positives": {
            "3 seeds": false_positives(random, reports, 3),
            **{f"{n} seeds": false_positives(random, reports, n) for n in (6, 10)},
            **{f"{n} seeds, poor runs diverge": false_positives(random, reports, n, losing=True) for n in (6, 10)},
            **{f"{n} seeds, unequal spreads": false_positives(random, reports, n, unequal=True) for n in (6, 10)},
        },
        "all intervals hold": {f"{n} seeds": held(random, reports, n) for n in (6, 10)},
        "found": {
            "1 sd, 10 seeds, one planned comparison": found(random, reports, 10, 1.0, primary),
            "1 sd, 10 seeds": found(random, reports, 10, 1.0),
            **{
                f"the smallest detectable difference of {n} seeds, {size:.2f} sd": found(random, reports, n, size)
                for n, size in detectable.items()
            },
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the judge is wrong.")
    parser.add_argument("--reports", type=int, default=1_000, help="simulated reports of each line")
    parser.add_argument("--out", type=Path, default=tables.RESULTS / "checks.json.xz", help="JSON file")
    arguments = parser.parse_args()
    began = time.monotonic()
    measured = measure(arguments.reports)
    for what, lines in measured.items():
        for name, line in lines.items():
            print(f"{what}, {name}: " + ", ".join(f"{key} {value}" for key, value in line.items()))
    environment = describe_environment("simulated", ["python", "benchmarks/judge.py", *sys.argv[1:]])
    content = {"environment": environment, "seconds": round(time.monotonic() - began, 1), "measured": measured}
    tables.write_part(arguments.out, content, "judge")


if __name__ == "__main__":
    main()
