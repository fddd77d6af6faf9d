"""Run a grid of tasks, students and seeds, and write its leaderboard; run it again and it does what is left.

python pipelines/sweep.py --config configs/sweeps/sst2.yaml
python pipelines/sweep.py --config configs/sweeps/sst2.yaml --workers 2
python pipelines/sweep.py --config configs/sweeps/sst2.yaml --engine submitit --engine_options.cluster slurm

Exit code 0; 1 when a run failed (the others go on, and the leaderboard lists it); 2 for a mistake in the command.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.utils.cli import print_error, run
from distill.utils.interrupts import Interrupted

if TYPE_CHECKING:
    from distill.sweeps.schema import SweepConfig, SweepRun


def main() -> int:
    """Run every cell that is not finished, then summarise all that are; also where a signal ends it before."""
    import psutil
    from tqdm import tqdm

    from distill.sweeps.runner import make_runner
    from distill.sweeps.schema import parse_sweep, sweep_runs

    sweep = parse_sweep(description=__doc__)
    grid = sweep_runs(sweep)
    of_text = are_of_text(sweep)
    start = make_runner(sweep)
    waiting = [cell for cell in grid if not cell.finished]
    failures: dict[str, str] = {}
    interrupted = None
    with (
        ThreadPoolExecutor(sweep.workers) as pool,
        tqdm(total=len(grid), initial=len(grid) - len(waiting), unit="run", desc="sweep") as bar,
    ):
        try:
            for cell, failure in zip(waiting, pool.map(start, waiting), strict=True):
                bar.update()
                if failure:
                    failures[cell.run_dir.name] = failure
        except Interrupted as error:  # the pool waits for its threads, and these for their runs
            pool.shutdown(wait=False, cancel_futures=True)
            for process in psutil.Process().children(recursive=True):
                process.terminate()
            interrupted = error

    write = write_of_texts if of_text else write_of_tasks
    failures = write(sweep, grid, failures)
    if interrupted is not None:
        raise interrupted
    for name, reason in failures.items():
        print_error(f"{name}: {reason}")
    return 1 if failures else 0


def write_of_tasks(sweep: "SweepConfig", grid: "list[SweepRun]", failures: dict[str, str]) -> dict[str, str]:
    """Write and print the leaderboard of tasks with labels, and return what failed, unreadable runs included."""
    from distill.reporting.tables import text_table
    from distill.sweeps.leaderboard import leaderboard_cells, write_leaderboard
    from distill.sweeps.mechanism_table import read_bench
    from distill.sweeps.runner import summaries

    found, unreadable = summaries(grid, sweep.reference)
    failures = failures | unreadable
    page = write_leaderboard(found, failures, Path(sweep.dir), read_bench(sweep.bench) if sweep.bench else None)
    if found:
        print(text_table(leaderboard_cells(found)))
    print(f"leaderboard: {page}")
    return failures


def write_of_texts(sweep: "SweepConfig", grid: "list[SweepRun]", failures: dict[str, str]) -> dict[str, str]:
    """Do the same for language models."""
    from distill.reporting.tables import text_table, without_gaps
    from distill.sweeps.text_leaderboard import read_text_runs, text_cells, write_text_leaderboard

    found, unreadable = read_text_runs(grid)
    failures = failures | unreadable
    page = write_text_leaderboard(found, failures, Path(sweep.dir))
    if found:
        print(text_table(without_gaps(text_cells(found))))
    print(f"leaderboard: {page}")
    return failures


def are_of_text(sweep: "SweepConfig") -> bool:
    """Tell whether the runs are of task text; UserError where some are and others are not, as no table has both."""
    from distill.config.yaml_files import text_at
    from distill.tasks import TEXT
    from distill.utils.errors import UserError

    tasks = [sweep.overrides.get("task") or text_at(Path(path), "task") for path in sweep.configs]
    if TEXT in tasks and set(tasks) != {TEXT}:
        raise UserError("sweep: configs mixes task text with tasks that have labels; make a sweep of each")
    return TEXT in tasks


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
