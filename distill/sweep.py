"""Many runs from one YAML: tasks x students x seeds, each an ordinary run of its own folder.

Nothing is scheduled here: a cell is a command line, cells run one after another or a few at a time, and a cell
that is finished says so and costs nothing, so that the same command resumes a sweep.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np

from distill.errors import UserError
from distill.files import write_atomically
from distill.record import Record, read_record
from distill.statistics import retention_over_runs


@dataclass(frozen=True)
class SweepConfig:
    """A grid of runs."""

    dir: str
    """Folder of all runs of the sweep, and of its leaderboard."""
    configs: list[str]
    """One run configuration per task."""
    students: dict[str, dict[str, Any]]
    """Name of a student to the dotted keys that make it."""
    seeds: list[int] = field(default_factory=lambda: [42])
    overrides: dict[str, Any] = field(default_factory=dict)
    """Dotted keys for every run."""
    launcher: list[str] = field(default_factory=lambda: ["accelerate", "launch", "--num_processes", "1"])
    """What starts a run."""
    jobs: int = 1
    """Runs at a time; give each its own cores or GPU, or they slow each other down."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    config: str
    student: str
    seed: int
    run_dir: Path
    command: list[str]


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
    except jsonargparse.ArgumentError as error:
        raise UserError(f"sweep: {' '.join(str(error).split())}") from error
    for name in ("configs", "students", "seeds", "launcher"):
        if not getattr(sweep, name):
            raise UserError(f"sweep: {name} is empty; name at least one")
    if sweep.jobs < 1:
        raise UserError(f"sweep: jobs is {sweep.jobs}; give 1 or more")
    for path in sweep.configs:
        if not Path(path).is_file():
            raise UserError(f"sweep: configs names {path}, which does not exist")
    return sweep


def cells(sweep: SweepConfig) -> list[Cell]:
    """Return every run of the grid, seeds innermost."""
    grid = []
    for config in sweep.configs:
        for student, keys in sweep.students.items():
            for seed in sweep.seeds:
                run_dir = Path(sweep.dir) / f"{Path(config).stem}-{student}-seed{seed}"
                command = [*sweep.launcher, "pipelines/distill.py", "--config", config]
                for key, value in {**sweep.overrides, **keys, "seed": seed, "run_dir": str(run_dir)}.items():
                    command += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
                grid.append(Cell(config, student, seed, run_dir, command))
    return grid


def is_finished(cell: Cell) -> bool:
    """Tell whether a run has everything that it writes."""
    return (cell.run_dir / "record.json").exists() and (cell.run_dir / "report.html").exists()


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Return what ``summary.json`` says of the same student with several seeds.

    Spread is the standard deviation over seeds (n - 1), null for one seed. Both definitions of retention are
    given, because published ones differ in which they mean.
    """
    first = records[0]
    metric = first["main_metric"]
    scores = {
        role: [record["models"][role]["metrics"][metric] for record in records]
        for role in ("teacher", "student", "baseline")
    }
    return {
        "task": first["task"],
        "metric": metric,
        "seeds": [record["seed"] for record in records],
        **{role: {"mean": float(np.mean(values)), "spread": _spread(values)} for role, values in scores.items()},
        "retention": {
            **retention_over_runs(scores["teacher"], scores["student"]),
            "spread": _spread(
                [student / teacher for teacher, student in zip(scores["teacher"], scores["student"], strict=True)]
            ),
            "by_seed": [record["retention"][metric] for record in records],
        },
        "parameters": first["models"]["student"]["parameters"],
        "layers": first["models"]["student"]["layers"],
        "attention": first["models"]["student"]["attention"],
        "speed": first["speed"],
    }


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def summaries(grid: Iterable[Cell]) -> dict[tuple[str, str], dict[str, Any]]:
    """Group the finished runs by task file and student and summarise each group."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for cell in grid:
        if is_finished(cell):
            groups.setdefault((Path(cell.config).stem, cell.student), []).append(
                read_record(cell.run_dir / "record.json")
            )
    return {name: summarise(records) for name, records in groups.items()}


HEADERS = (
    "task",
    "student",
    "metric",
    "seeds",
    "teacher",
    "student score",
    "baseline",
    "retention",
    "spread",
    "speedup at 128",
)


def leaderboard_rows(summary: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[list[str]]:
    """Return one row per task and student, best retention first."""
    rows = []
    order = sorted(summary.items(), key=lambda item: (item[0][0], -(item[1]["retention"]["mean_of_ratios"] or 0)))
    for (task, student), values in order:
        at_128 = [point["speedup"] for point in values["speed"] if point["length"] == 128 and point["speedup"]]
        rows.append(
            [
                task,
                student,
                values["metric"],
                str(len(values["seeds"])),
                *(f"{100 * values[role]['mean']:.1f}" for role in ("teacher", "student", "baseline")),
                _percent(values["retention"]["mean_of_ratios"]),
                _percent(values["retention"]["spread"]),
                f"{max(at_128):.2f}x" if at_128 else "-",
            ]
        )
    return rows


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def write_leaderboard(summary: Mapping[tuple[str, str], Mapping[str, Any]], folder: Path) -> Path:
    """Write summary.json, leaderboard.csv and leaderboard.md into ``folder`` and return the last."""
    rows = leaderboard_rows(summary)
    by_name = {f"{task}-{student}": values for (task, student), values in summary.items()}
    write_atomically(folder / "summary.json", json.dumps(by_name, indent=1))
    table = io.StringIO()
    csv.writer(table).writerows([HEADERS, *rows])
    write_atomically(folder / "leaderboard.csv", table.getvalue())
    lines = [HEADERS, ["---"] * len(HEADERS), *rows]
    write_atomically(folder / "leaderboard.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return folder / "leaderboard.md"
