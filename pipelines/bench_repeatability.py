"""Tell how far the speeds of compare.py can be trusted: one comparison several times, and one without a difference.

    python pipelines/bench_repeatability.py --teacher runs/sst2/teacher --student runs/sst2/student --task sst2
    python pipelines/bench_repeatability.py --teacher DIR --student DIR --task sst2 --lengths 32 128

Times, each time in a fresh process, teacher and student three times (--repeats), and once the teacher with itself,
whose true speedup is 1.00 at every point. Counts the points at which the intervals of every two runs overlap, the
speedups that lie inside another run's interval (95 % of them, if the intervals are right), the points at which all do,
and those at which the interval of the teacher against itself contains 1. The options are those of compare.py, on a
grid of 20 points unless others are given.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.benchmark.points import SpeedPoint
from distill.config.data_options import data_options
from distill.utils.cli import positive, run
from distill.utils.record_json import to_json
from pipelines.compare import check_options, make_parser, open_comparison

Speed = Sequence[SpeedPoint]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.set_defaults(batch_sizes=[1, 2, 8, 32], lengths=[16, 32, 64, 128, 256], seconds_per_point=1.0)
    add, output = parser.add_argument, Path("runs/bench/bench_repeat.json")
    add("--repeats", type=positive, default=3, metavar="N", help="times the comparison is repeated (default 3)")
    add("--record", type=Path, default=output, metavar="FILE", help=f"file to write (default {output})")
    options = parser.parse_args(arguments)
    data_options(options, options.task)
    return options


def repeatability(runs: Sequence[Speed]) -> dict[str, int]:
    """Count the points of equal runs that agree, of those that all runs measured, and the pairs of runs at a point."""
    points = [measured(places) for places in zip(*runs, strict=True)]
    pairs = [list(permutations(places, 2)) for places in points if len(places) == len(runs)]
    return {
        "points": len(pairs),
        "overlapping": sum(all(one.low <= other.high for one, other in each) for each in pairs),
        "inside_each_other": sum(all(_inside(one, other) for one, other in each) for each in pairs),
        "pairs": sum(map(len, pairs)),
        "inside": sum(_inside(one, other) for each in pairs for one, other in each),
    }


class Speedup(NamedTuple):
    """A speedup that was measured."""

    value: float
    low: float
    high: float


def measured(points: Speed) -> list[Speedup]:
    """Return the speedups of those points that have one."""
    found = ((point.speedup, point.low, point.high) for point in points)
    return [
        Speedup(value, low, high)
        for value, low, high in found
        if value is not None and low is not None and high is not None
    ]


def _inside(again: Speedup, point: Speedup) -> bool:
    """Whether a repetition gave a speedup inside a point's interval."""
    return point.low <= again.value <= point.high


def null_coverage(speed: Speed) -> dict[str, int]:
    """Count the points at which a model against itself has an interval around 1."""
    points = measured(speed)
    return {"points": len(points), "covered": sum(point.low <= 1 <= point.high for point in points)}


def time_models(options: argparse.Namespace) -> Speed:
    """Load and time the models as compare.py does."""
    from distill.benchmark.latency import measure_speed
    from distill.benchmark.suite import with_costs
    from distill.benchmark.timing import Budget

    opened = open_comparison(options, *check_options(options))
    models, settings = opened.models, opened.setup.settings
    conditions = opened.setup.conditions(models.teacher.config.vocab_size)
    grid = list(product(sorted(settings.batch_sizes), sorted(settings.lengths)))
    budget = Budget(settings.seconds_per_point, settings.max_seconds)
    return [with_costs(point, models) for point in measure_speed(models, conditions, grid, budget)]


def main() -> None:
    """Time, count, print and write."""
    options = parse()
    from distill.utils.environment import describe_environment
    from distill.utils.files import write_atomically
    from distill.utils.progress import progress_bar

    jobs = [options] * options.repeats + [argparse.Namespace(**vars(options) | {"student": options.teacher})]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        shown = progress_bar(pool.imap(time_models, jobs), name="comparisons", unit="comparison", total=len(jobs))
        *runs, null = shown
    agreeing, covered = repeatability(runs), null_coverage(null)
    found = {
        **{"task": options.task, "environment": describe_environment(options.device)},
        **{"repeatability": agreeing, "null": covered, "runs": runs, "null_run": null},
    }
    write_atomically(options.record, json.dumps(to_json(found), indent=1) + "\n")
    print(
        f"{options.task}: {options.repeats} equal comparisons: intervals overlap at {agreeing['overlapping']} of "
        f"{agreeing['points']} points; {agreeing['inside']} of {agreeing['pairs']} speedups lie inside another run's "
        f"interval, at {agreeing['inside_each_other']} points all\n"
        f"teacher against itself: the interval contains 1.00 at {covered['covered']} of {covered['points']} points\n"
        f"written to {options.record}"
    )


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
