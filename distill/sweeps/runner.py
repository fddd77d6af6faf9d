"""Many runs from one YAML: tasks x students x seeds, each an ordinary run of its own folder.

Nothing is scheduled here: a cell is a command line, cells run a few at a time, as processes of this machine or as
jobs that submitit hands to a cluster, and a cell that is finished costs nothing, so the same command resumes a sweep.
"""

import fcntl
import os
import re
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from distill.sweeps.schema import MINUTES, ROOT, SweepConfig, SweepRun
from distill.utils.errors import UserError

# ---------------------------------------------------------------- running


def make_runner(sweep: SweepConfig) -> Callable[[SweepRun], str | None]:
    """Return a function that runs a cell to its end and returns None, or in one line why it failed.

    Raises:
        UserError: the engine is not installed, or does not know an option.
    """
    if sweep.engine == "submitit":
        return _submitit_runner(sweep)
    shared = sweep.workers > 1 and "OMP_NUM_THREADS" not in os.environ
    return partial(run_one, threads=max(1, (os.cpu_count() or 1) // sweep.workers) if shared else None)


def _submitit_runner(sweep: SweepConfig) -> Callable[[SweepRun], str | None]:
    try:
        import submitit
    except ImportError:
        raise UserError("sweep: engine submitit is not installed; pip install submitit, or use engine local") from None
    options = {"timeout_min": MINUTES, **sweep.engine_options}
    executor = submitit.AutoExecutor(Path(sweep.dir) / "submitit", cluster=options.pop("cluster", None))
    try:
        executor.update_parameters(**options)
    except (NameError, ValueError, TypeError) as error:
        raise UserError(f"sweep: engine_options: {error}") from error
    # A job starts in the folder where the sweep was started, which need not be that of our packages.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

    def submit(cell: SweepRun) -> str | None:
        job = executor.submit(run_one, cell)
        error = job.exception()
        return job.result() if error is None else f"job {job.job_id}: {str(error).strip().splitlines()[-1]}"

    return submit


def run_one(cell: SweepRun, threads: int | None = None) -> str | None:
    """Run one cell to its end and return None, or in one line why it failed; its output is appended to its log.

    ``threads`` limits the run's computing threads; None leaves that to the launcher.
    """
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    with open(cell.log, "ab") as log:
        # The run inherits the lock with the file and keeps it when the sweep alone is killed: a sweep that is started
        # again waits for such a run instead of starting a second one in its folder.
        fcntl.flock(log, fcntl.LOCK_EX)
        if cell.finished:
            return None
        start = log.seek(0, os.SEEK_END)
        code = subprocess.run(cell.command, stdout=log, stderr=log, env=environment, check=False).returncode
    if code == 0 and cell.finished:
        return None
    return f"{_last_error(cell.log, start)} (exit code {code}, log {cell.log})"


def _last_error(log: Path, start: int) -> str:
    """Return the last line of a log, from ``start`` bytes on, that names an error, or simply the last."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    # The launcher adds an error of its own, which says only that there was one.
    errors = re.compile(r"(error|(?!\S*CalledProcess)[\w.]+(Error|Exception)): ")
    named = [line for line in lines if errors.match(line)]
    return (named or lines or ["it ended without a word"])[-1].removeprefix("error: ")


# ---------------------------------------------------------------- what came of it


def summaries(
    grid: Iterable[SweepRun], reference: str | None = None
) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, str]]:
    """Summarise the finished runs of every task and student over their seeds.

    Args:
        grid: the runs.
        reference: a student; every other one's summary then has ``over_reference``, what it gains over that one.

    Returns:
        (task, student) to its summary, and name of a run that cannot be read to the reason.
    """
    # Here and not above: runs are started without waiting for torch.
    from distill.sweeps.summary import SeedRun, gain_over_student, read_run, summarise

    groups: dict[tuple[str, str], list[SeedRun]] = {}
    failures = {}
    for cell in grid:
        if cell.finished:
            try:
                groups.setdefault((cell.task, cell.student), []).append(read_run(cell.run_dir))
            except UserError as error:
                failures[cell.run_dir.name] = str(error)
    found = {}
    for key, runs in groups.items():
        if runs:
            try:
                found[key] = summarise(runs)
            except UserError as error:
                failures["-".join(key)] = str(error)
    for task, student in found:
        if reference and student != reference and (task, reference) in found:
            gain = gain_over_student(groups[task, student], groups[task, reference])
            found[task, student]["over_reference"] = gain
    return found, failures
