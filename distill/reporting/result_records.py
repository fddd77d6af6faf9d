"""What the tables of the pages are made from: the records of notebooks/records, and how their numbers are written."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from distill.evaluation.record import Record, parse_record
from distill.evaluation.record_parts import Interval, SpeedPoint
from distill.utils.errors import UserError

MAIN_METRICS = {
    "sst2": "accuracy",
    "cola": "matthews_correlation",
    "mrpc": "f1",
    "stsb": "pearson",
    "rte": "accuracy",
    "qqp": "f1",
    "mnli": "accuracy",
    "qnli": "accuracy",
    "wnli": "accuracy",
}
TASK_NAMES = {
    "sst2": "SST-2",
    "cola": "CoLA",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "rte": "RTE",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "wnli": "WNLI",
}
METRIC_NAMES = {"accuracy": "accuracy", "matthews_correlation": "Matthews", "f1": "F1", "pearson": "Pearson"}


class Records:
    """The records of one folder, each in ``<experiment>/<name>``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, dict[str, Any]] = {}

    def json(self, name: str) -> dict[str, Any]:
        """Return one JSON record by its name without ending, such as ``glue/summary``.

        Raises:
            UserError: there is no such record, or it is not JSON.
        """
        if name not in self._read:
            try:
                self._read[name] = json.loads(self._text(f"{name}.json"))
            except ValueError as error:
                raise UserError(f"record {self.folder / name}.json is not JSON: {error}") from error
        return self._read[name]

    def find(self, name: str) -> dict[str, Any]:
        """Return one JSON record, empty where it does not exist yet."""
        there = {str(path.with_suffix("")) for path in self.paths()}
        return self.json(name) if name in there else {}

    def record(self, name: str) -> Record:
        """Return the record of one comparison by its name without ending, such as ``speed/mrpc-target-5``.

        Raises:
            UserError: there is no such record, or it lacks something.
        """
        return parse_record(self.json(name), f"record {self.folder / name}.json")

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a CSV record, its name given with its ending."""
        return list(csv.DictReader(self._text(name).splitlines()))

    def paths(self) -> list[Path]:
        """Return all records, relative to the folder."""
        found = (path.relative_to(self.folder) for path in self.folder.glob("*/*") if path.suffix in (".json", ".csv"))
        return sorted(found)

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"record {self.folder / name} cannot be read: {error.strerror}") from error


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def percent(value: float | None) -> str:
    """Write a share in percent without its sign, ``98.7``; "-" where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def known(value: float | None) -> float:
    """Return a number that a table cannot do without.

    Raises:
        UserError: it was not measured.
    """
    if value is None:
        raise UserError("a record lacks a number")
    return value


def interval(found: Interval) -> str:
    """Write a number and its interval as shares in percent, ``98.7 [96.9, 100.5]``."""
    return f"{percent(found.value)} [{percent(found.low)}, {percent(found.high)}]"


def times(speedup: Interval) -> str:
    """Write a speedup, ``2.08 [2.03, 2.12]``; "-" where it was not measured."""
    return "-" if speedup.value is None else f"{speedup.value:.2f} [{speedup.low:.2f}, {speedup.high:.2f}]"


def speedup_of(row: dict[str, Any]) -> Interval:
    """Return the speedup in a row of a benchmark."""
    return Interval(row["speedup"], row.get("low"), row.get("high"))


def kept(cell: dict[str, Any]) -> Interval:
    """Return the retention of the main metric in one cell of a summary, with its interval."""
    return Interval(**cell["metrics"][cell["main_metric"]]["retention"]["mean_of_ratios"])


def score(cell: dict[str, Any], role: str = "student") -> float:
    """Return the main metric of one model in one cell of a summary, averaged over seeds."""
    return cell["metrics"][cell["main_metric"]][role]["mean"]


def mean_interval(found: Sequence[Interval]) -> Interval:
    """Return the mean of ratios whose errors are independent, with the interval that they leave it."""
    values, lows, highs = ([known(getattr(each, end)) for each in found] for end in ("value", "low", "high"))
    value = mean(values)
    down, up = (
        math.sqrt(sum((end - each) ** 2 for end, each in zip(ends, values, strict=True))) / len(found)
        for ends in (lows, highs)
    )
    return Interval(value, value - down, value + up)


def measured_on(*environments: Mapping[str, Any] | None) -> str:
    """Say on which machines, in which precision and at which commits records were made; None: there is none yet."""
    known = [environment for environment in environments if environment is not None]
    if not known:
        return "Not run yet: there is no record."
    facts: list[tuple[str, Callable[[Any], str]]] = [
        ("cpu", str),
        ("threads", lambda threads: f"{threads} thread{'s' if threads != 1 else ''}"),
        ("training_precision", lambda precision: f"trained in {precision}"),
        ("commit", lambda commit: f"commit {commit[:7]}"),
    ]
    said = []
    for key, say in facts:
        values = dict.fromkeys(say(environment[key]) for environment in known if environment.get(key))
        said += [" and ".join(values)] if values else []
    return f"On {', '.join(said)}."


def star(point: SpeedPoint) -> str:
    """Return the mark of a point that was timed beyond the models' positions, where nothing is known about quality."""
    return " *" if point.speed_only else ""


def points_by_length(record: Record, batch_size: int = 1) -> dict[int, SpeedPoint]:
    """Return the speed points of a comparison at one batch size, by length in tokens."""
    return {point.length: point for point in record.speed if point.batch_size == batch_size}
