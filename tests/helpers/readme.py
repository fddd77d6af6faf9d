"""README's text and tables, and the records that its numbers come from."""

import itertools
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
RECORDS = ROOT / "notebooks" / "records"
MAIN_METRICS = {
    "sst2": "accuracy",
    "cola": "matthews_correlation",
    "mrpc": "f1",
    "stsb": "pearson",
    "rte": "accuracy",
}


def record(name: str) -> dict:
    return json.loads((RECORDS / f"{name}.json").read_text())


def table(start: str) -> dict[str, list[str]]:
    """Return the other cells by the first one, of all rows of the one table whose head begins with ``start``."""
    lines = README.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith(start)]
    assert len(heads) == 1, f"{len(heads)} tables start with {start!r}"
    body = itertools.takewhile(lambda line: line.startswith("|"), lines[heads[0] + 2 :])
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in body)
    return {first: others for first, *others in rows}


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def kept(cell: dict) -> dict[str, float]:
    """Return the retention of the main metric, with its interval."""
    return cell["metrics"][MAIN_METRICS[cell["task"]]]["retention"]["mean_of_ratios"]
