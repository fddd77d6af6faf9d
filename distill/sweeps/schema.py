"""A sweep's file: which runs it asks for."""

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import jsonargparse

from distill.config.given_files import file_problem, given_files
from distill.config.parser_messages import parser_message
from distill.config.parsing import make_parser, names_as_written
from distill.config.yaml_files import SECTIONS, load_value, text_at, write_yaml
from distill.training.finished import is_finished
from distill.utils.errors import UserError, choices_hint

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("local", "submitit")
MINUTES = 7 * 24 * 60
"""Time limit of a submitted job unless the options name one; submitit's own is 5 minutes."""


@dataclass(frozen=True)
class SweepConfig:
    """A grid of runs: every student on every task with every seed."""

    dir: str
    """Folder of the runs and of their leaderboard."""
    configs: list[str]
    """Configuration files of runs, one per task."""
    students: dict[str, dict[str, Any]]
    """Students by name: the dotted keys that make each of them."""
    reference: str | None = None
    """Student that the others are compared with, example by example."""
    seeds: list[int] = field(default_factory=lambda: [42])
    """Seeds of training, one run each."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Dotted keys for every run, such as --overrides.data.dir DATA; {task} in a value stands for the name of the run's
    configuration file, {seed} for its seed. Runs may not share a hub.repo."""
    launcher: list[str] = field(default_factory=lambda: ["accelerate", "launch", "--num_processes", "1"])
    """Command that starts a run."""
    bench: str | None = None
    """Record of pipelines/bench_mechanisms.py whose speed, memory and growth of every mechanism join the leaderboard,
    so that the runs themselves need no quiet machine."""
    workers: int = 1
    """Runs at the same time; on one machine they share its cores."""
    engine: str = "local"
    """Where runs are started. local: on this machine; submitit: as jobs of a cluster (pip install submitit)."""
    engine_options: dict[str, Any] = field(default_factory=dict)
    """Options of submitit's executor: cluster (slurm or local), timeout_min, slurm_partition, gpus_per_node, ..."""


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
        """Whether nothing is left to do."""
        return is_finished(self.run_dir)


def parse_sweep(arguments: Sequence[str] | None = None, description: str | None = None) -> SweepConfig:
    """Read ``--config FILE`` and overrides; ``description`` stands in the help.

    Raises:
        UserError: a wrong key or value, or no student, seed or configuration at all.
    """
    parser = make_parser(SweepConfig, description)
    arguments = names_as_written(sys.argv[1:] if arguments is None else arguments)
    try:
        rest, given = _take_keys(arguments)
        wants_print = "--print_config" in rest
        namespace = parser.parse_args([argument for argument in rest if argument != "--print_config"])
        namespace.pop("config", None)
        sweep = SweepConfig(**parser.instantiate(namespace).as_dict())
        students = {name: dict(keys) for name, keys in sweep.students.items()}
        for name, keys in given["students"].items():
            students[name] = students.get(name, {}) | keys
        sweep = replace(sweep, students=students, overrides=_dotted(sweep.overrides) | given["overrides"].get("", {}))
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        files = ", ".join(value for _, value in given_files(arguments, ["config"]))
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"{files} is not UTF-8 text; save it as UTF-8") from error
        problem = file_problem(arguments, SweepConfig) or f"sweep: {parser_message(str(error), files, SweepConfig)}"
        raise UserError(problem) from error
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
    _refuse_shared_folders(sweep)
    _refuse_shared_repositories(sweep)
    if wants_print:  # here, and not by the parser, which does not see the keys that were taken out
        print(write_yaml(asdict(sweep)), end="")
        raise SystemExit(0)
    return sweep


def _refuse_shared_folders(sweep: SweepConfig) -> None:
    """Refuse two runs of one name, which would share a folder, and keys that the sweep sets itself; UserError says."""
    named = {"configs": [Path(path).stem for path in sweep.configs], "seeds": list(map(str, sweep.seeds))}
    for name, values in named.items():
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise UserError(f"sweep: {name} names {twice} twice, and such runs would share a folder; keep one")
    for name, keys in {"overrides": sweep.overrides, **sweep.students}.items():
        for key in ("seed", "run_dir"):
            if key in keys:
                raise UserError(f"sweep: {name} sets {key}, which the sweep sets itself; give seeds and dir")


def _refuse_shared_repositories(sweep: SweepConfig) -> None:
    """Refuse runs that would push their students to one repository, one over the other; UserError says."""
    owners: dict[str, str] = {}
    for config, student, seed in product(sweep.configs, sweep.students, sweep.seeds):
        task, keys = Path(config).stem, {**sweep.overrides, **sweep.students[student]}
        repo = keys["hub.repo"] if "hub.repo" in keys else text_at(Path(config), "hub.repo")
        name, run = _filled(str(repo or ""), task, seed), f"{student} on {task}"
        if name in owners:
            both = f"{owners[name]} and {run}" if owners[name] != run else f"every seed of {run}"
            raise UserError(
                f"sweep: hub.repo {name} would get {both}, one over the other; leave it out "
                "(--overrides.hub.repo null) and push the student that you choose, or give each its own"
            )
        if name:
            owners[name] = run


def _take_keys(arguments: Sequence[str]) -> tuple[list[str], dict[str, dict[str, dict[str, Any]]]]:
    """Take ``--overrides.KEY VALUE`` and ``--students.NAME.KEY VALUE`` out of a command line.

    The parser takes the parts of a dotted key for dicts in dicts, of which a second one would replace the first.

    Returns:
        The other arguments; and option -> name of a student, or nothing -> dotted key -> value.
    """
    rest: list[str] = []
    given: dict[str, dict[str, dict[str, Any]]] = {"overrides": {}, "students": {}}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        option, equals, value = argument.partition("=")
        kind, _, key = option.removeprefix("--").partition(".")
        name = ""
        if kind == "students":
            name, _, key = key.partition(".")
        if not option.startswith("--") or kind not in given or not key:
            rest.append(argument)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UserError(f"sweep: {option} has no value; give one behind it")
            value = waiting.pop(0)
        given[kind].setdefault(name, {})[key] = load_value(value, option)
    return rest, given


def _dotted(keys: dict[str, Any]) -> dict[str, Any]:
    """Return dotted keys in place of nested ones, as a file may have them. Later ones win."""
    found: dict[str, Any] = {}
    for key, value in keys.items():
        if key in (*SECTIONS, "teacher.scratch") and isinstance(value, dict):
            found |= _dotted({f"{key}.{name}": below for name, below in value.items()})
        else:
            found[key] = value
    return found


def _filled(text: str, task: str, seed: int) -> str:
    """Return a value of a key with what stands for the run's task and seed filled in."""
    return text.replace("{task}", task).replace("{seed}", str(seed))


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
                    command += [f"--{key}", _filled(text, Path(config).stem, seed)]
                grid.append(SweepRun(config, student, seed, run_dir, command))
    return grid
