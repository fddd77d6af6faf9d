"""Records are valid JSON, whole, and refused with the name of what is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.records import SAMPLE, sample_json, typed

from distill.evaluation import record, text_record
from distill.utils.errors import UserError
from distill.utils.record_json import to_json

ROOT = Path(__file__).parents[3]


def test_every_shipped_record_is_read_and_written_again_as_it_was():
    """Those of earlier versions too: no key is added to them and none is lost."""
    paths = [*(ROOT / "notebooks" / "records").glob("*/*.json"), ROOT / "tests" / "data" / "sample_record.json"]
    found = {path: json.loads(path.read_text()) for path in paths}
    records = {path: whole for path, whole in found.items() if "schema" in whole}
    assert len(records) > 100  # beside them there are summaries and benchmarks
    for path, whole in records.items():
        read = text_record.read_text_record if whole["task"] == "text" else record.read_record
        assert to_json(read(path)) == whole, path


def change(path: str, value) -> dict:
    changed = sample_json()
    *parents, last = path.split("/")
    inner = changed
    for key in parents:
        inner = inner[int(key) if key.isdigit() else key]
    if value is KeyError:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema 2 is unknown; this version reads schema 1"),
        ("schema", KeyError, "schema is missing"),
        ("retention", KeyError, "retention is missing"),
        ("num_examples", "many", "num_examples is text, not a whole number"),
        ("num_examples", True, "num_examples is true or false, not a whole number"),
        ("models/student", KeyError, "models.student is missing"),
        ("models/student/flops", "1e9", "models.student.flops is text, not a whole number or null"),
        ("models/teacher/metrics", {}, "models.teacher.metrics.accuracy is missing"),
        ("models/teacher/metrics", None, "models.teacher.metrics is null, not an object"),
        ("retention/accuracy/low", "0.9", "retention.accuracy.low is text, not a whole number or a number or null"),
        ("speed/1/depth_speedup", KeyError, r"speed\[1\].depth_speedup is missing"),
        ("memory/0", 3, r"memory\[0\] is a whole number, not an object"),
        ("alternatives/0/retention", KeyError, r"alternatives\[0\].retention is missing"),
        ("alternatives/1/speed/2/student_ms", "2", r"alternatives\[1\].speed\[2\].student_ms is text"),
        ("gain/accuracy/low", KeyError, "gain.accuracy.low is missing"),
        ("stages/0/name", KeyError, r"stages\[0\].name is missing"),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
    with pytest.raises(UserError, match=message):
        record.parse_record(change(path, value), "some file")


def test_numbers_may_be_null():
    for path in ("agreement", "crossover_length", "speed/0/speedup", "models/baseline/metrics"):
        record.parse_record(change(path, None))


def test_records_of_earlier_versions_are_read():
    old = sample_json()
    for key in ("alternatives", "median_length", "gain", "never_answered"):
        del old[key]
    assert typed(old).alternatives == ()


def test_write_then_read(tmp_path):
    sample = typed(SAMPLE)
    record.write_record(sample, tmp_path / "record.json")
    assert record.read_record(tmp_path / "record.json") == sample
    assert record.read_record(tmp_path) == sample


def test_keys_of_a_later_version_are_passed_over():
    assert typed(SAMPLE | {"a_later_key": 1}) == typed(SAMPLE)


def test_numbers_that_are_not_finite_become_null_with_a_reason():
    sample = typed(SAMPLE)
    stages = (replace(sample.stages[0], seconds=float("nan")), *sample.stages[1:])
    finished = record.finish_record(replace(sample, stages=stages, agreement=np.float32(0.5)))
    assert finished.stages[0].seconds is None
    assert finished.reasons == {"stages[0].seconds": "not a finite number"}
    assert type(finished.agreement) is float


def test_missing_and_torn_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        record.read_record(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps(SAMPLE)[:100])
    with pytest.raises(UserError, match="not whole JSON"):
        record.read_record(tmp_path)
    (tmp_path / "record.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="not whole JSON"):
        record.read_record(tmp_path)
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(UserError, match="the file is a list, not an object"):
        record.read_record(tmp_path)


def test_plain_turns_everything_into_json():
    value = {"a": np.float32(0.5), "b": (np.int64(3), np.array([1.0, np.nan])), 3: float("inf"), "c": True}
    assert record.plain(value) == {"a": 0.5, "b": [3, [1.0, None]], "3": None, "c": True}
    assert record.not_finite(value) == ["b[1][1]", "3"]
