"""Run a grid of tasks, students and seeds, and write its leaderboard; run it again and it does what is left.

python pipelines/sweep.py --config configs/sweeps/sst2.yaml
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.console import run
from distill.errors import UserError


def main() -> None:
    """Run every cell that is not finished, then summarise all that are."""
    from tqdm import tqdm

    from distill.sweep import Cell, cells, is_finished, parse_sweep, summaries, write_leaderboard

    sweep = parse_sweep()
    grid = cells(sweep)
    waiting = [cell for cell in grid if not is_finished(cell)]
    bar = tqdm(total=len(grid), initial=len(grid) - len(waiting), unit="run", desc="sweep")

    def start(cell: Cell) -> str | None:
        log = cell.run_dir.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            code = subprocess.run(cell.command, stdout=output, stderr=output, check=False).returncode
        bar.update()
        return None if code == 0 else f"{cell.run_dir} ended with exit code {code}; its log is {log}"

    with ThreadPoolExecutor(sweep.jobs) as pool:
        failures = [failure for failure in pool.map(start, waiting) if failure]
    bar.close()
    if any(is_finished(cell) for cell in grid):
        leaderboard = write_leaderboard(summaries(grid), Path(sweep.dir))
        print(leaderboard.read_text(), end="")
        print(f"leaderboard: {leaderboard}")
    if failures:
        raise UserError("; ".join(failures))


if __name__ == "__main__":
    run(main)
