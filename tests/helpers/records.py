"""A small record, whole or changed, for the tests of what reads records."""

import copy
import json
from pathlib import Path
from typing import Any

from distill.evaluation.record import Record, parse_record

SAMPLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "sample_record.json").read_text())
"""As JSON: complete, with an alternative that failed and a point that ran out of memory."""


def sample_json() -> dict[str, Any]:
    """Return a copy of the sample that a test may change, to be read by `typed`."""
    return copy.deepcopy(SAMPLE)


def typed(record: dict[str, Any]) -> Record:
    """Return JSON as the record that the code reads: a mistake of a test in it is refused."""
    return parse_record(copy.deepcopy(record), "the test's record")
