"""Many runs from one YAML: tasks x students x seeds, each an ordinary run of its own folder.

Nothing is scheduled here: a cell is a command line, cells run a few at a time, as processes of this machine or as
jobs that submitit hands to a cluster, and a cell that is finished costs nothing, so the same command resumes a sweep.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jsonargparse

from distill.utils.errors import UserError, choices_hint

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("local", "submitit")
MINUTES = 7 * 24 * 60
"""Time limit of a submitted job unless the options name one; submitit's own is 5 minutes."""


@dataclass(frozen=True)
class SweepConfig:
    """A grid of runs."""

    dir: str
    """Folder of all runs of the sweep, and of its leaderboard."""
    configs: list[str]
    """One run configuration per task."""
    students: dict[str, dict[str, Any]]
    """Name of a student to the dotted keys that make it."""
    reference: str | None = None
    """Name of the student that the others are compared with, example by example: what each of them gains or loses."""
    seeds: list[int] = field(default_factory=lambda: [42])
    overrides: dict[str, Any] = field(default_factory=dict)
    """Dotted keys for every run; {task} in a value stands for the name of the run's configuration file."""
    launcher: list[str] = field(default_factory=lambda: ["accelerate", "launch", "--num_processes", "1"])
    """What starts a run."""
    bench: str | None = None
    """Record of pipelines/bench_mechanisms.py: its speed, memory and growth of every student's attention join the
    leaderboard, so that the runs themselves need not be timed on a quiet machine."""
    workers: int = 1
    """Runs at a time; on one machine they share its cores."""
    engine: str = "local"
    """local: processes of this machine; submitit: jobs of a cluster (pip install submitit)."""
    engine_options: dict[str, Any] = field(default_factory=dict)
    """For submitit's executor: cluster (slurm or local), timeout_min, slurm_partition, gpus_per_node, …"""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    config: str
    student: str
    seed: int
    run_dir: Path
    command: list[str]

    @property
    def task(self) -> str:
        """Name of the task in tables: that of its configuration file."""
        return Path(self.config).stem

    @property
    def log(self) -> Path:
        """Where the output of the run goes."""
        return self.run_dir.with_name(f"{self.run_dir.name}.log")

    @property
    def finished(self) -> bool:
        """Whether the last thing that a run writes is there."""
        return (self.run_dir / "record.json").exists() and (self.run_dir / "report.html").exists()


def parse_sweep(arguments: Sequence[str] | None = None) -> SweepConfig:
    """Read ``--config FILE`` and overrides.

    Raises:
        UserError: a wrong key or value, or no student, seed or configuration at all.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False, description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file of the sweep")
    parser.add_class_arguments(SweepConfig)
    try:
        namespace = parser.parse_args(arguments)
        namespace.pop("config", None)
        sweep = SweepConfig(**parser.instantiate(namespace).as_dict())
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        raise UserError(f"sweep: {' '.join(str(error).split())}") from error
    for name in ("configs", "students", "seeds", "launcher"):
        if not getattr(sweep, name):
            raise UserError(f"sweep: {name} is empty; name at least one")
    if sweep.workers < 1:
        raise UserError(f"sweep: workers is {sweep.workers}; give 1 or more")
    if sweep.engine not in ENGINES:
        raise UserError(f"sweep: engine {sweep.engine!r} is unknown; {choices_hint(sweep.engine, ENGINES)}")
    for student in sweep.students:
        if not re.fullmatch(r"[\w-]{1,100}", student):  # it becomes the name of a folder
            raise UserError(f"sweep: the student's name {student!r}: use letters, digits, _ and -, at most 100")
    if sweep.reference not in (None, *sweep.students):
        hint = choices_hint(sweep.reference, sweep.students)
        raise UserError(f"sweep: reference {sweep.reference!r} is none of the students; {hint}")
    if sweep.bench is not None and not Path(sweep.bench).is_file():
        raise UserError(
            f"sweep: bench names {sweep.bench}, which does not exist; pipelines/bench_mechanisms.py writes it"
        )
    for path in sweep.configs:
        if not Path(path).is_file():
            raise UserError(f"sweep: configs names {path}, which does not exist")
    return sweep


def sweep_runs(sweep: SweepConfig) -> list[SweepRun]:
    """Return every run of the grid, seeds innermost.

    Raises:
        UserError: the launcher is not installed.
    """
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which(sweep.launcher[0], path=beside_python)
    if program is None:
        raise UserError(f"sweep: launcher {sweep.launcher[0]!r} is not installed; name another in launcher")
    grid = []
    for config in sweep.configs:
        for student, keys in sweep.students.items():
            for seed in sweep.seeds:
                run_dir = Path(sweep.dir) / f"{Path(config).stem}-{student}-seed{seed}"
                command = [program, *sweep.launcher[1:], str(ROOT / "pipelines" / "distill.py"), "--config", config]
                for key, value in {**sweep.overrides, **keys, "seed": seed, "run_dir": str(run_dir)}.items():
                    text = value if isinstance(value, str) else json.dumps(value)
                    command += [f"--{key}", text.replace("{task}", Path(config).stem)]
                grid.append(SweepRun(config, student, seed, run_dir, command))
    return grid


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
