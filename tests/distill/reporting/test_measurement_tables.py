"""Speed and memory of a record as tables, and what could be used instead of the student."""

import pytest
from helpers.records import sample_json, typed

from distill.reporting.measurement_tables import alternative_cells, speed_cells
from distill.reporting.record_tables import comparison_table


@pytest.fixture
def record():
    return sample_json()


def test_alternatives_stand_beside_the_student(record):
    cells = alternative_cells(typed(record))
    assert cells.headers[-4:] == ("at 24 tokens", "at 32 tokens", "at 128 tokens", "at 512 tokens")
    assert cells.rows[0] == ("student", "89.3 %", "97.5 % [95.9, 99.1]", "-", "1.71×", "1.78×", "2.12×", "2.78×")
    assert cells.rows[2][:4] == ("teacher in ONNX Runtime int8", "89.2 %", "97.4 % [95.9, 98.9]", "23 MB")
    assert cells.rows[2][4:] == ("3.27×", "2.93×", "2.29×", "1.76×")
    assert cells.rows[3][1:] == ("n/a", "n/a", "-", "n/a", "n/a", "n/a", "n/a")
    assert cells.notes == (
        "at … tokens: times as fast as the teacher in torch, batch 1; the median of the texts is about 24 tokens",
        "softmax student of the same depth: OSError: No such file or directory",
    )
    text = comparison_table(typed(record))
    assert text.index("Teacher against student") < text.index("Alternatives") < text.index("Speed on")


def test_a_single_length_that_was_not_measured_has_its_reason(record):
    record["alternatives"][1]["speed"][3] |= dict.fromkeys(("speedup", "student_ms")) | {"reason": "out of memory"}
    assert "teacher in ONNX Runtime int8, 512 tokens: out of memory" in alternative_cells(typed(record)).notes


def test_alternatives_without_speed(record):
    for alternative in record["alternatives"]:
        alternative["speed"] = []
    cells = alternative_cells(typed(record))
    assert [row[:2] for row in cells.rows[:2]] == [("student", "89.3 %"), ("teacher in ONNX Runtime fp32", "91.6 %")]
    assert len(cells.notes) == 1
    assert alternative_cells(typed(record | {"alternatives": []})).rows == ()


def test_speed_rows_mark_what_is_special(record):
    cells = speed_cells(typed(record))
    assert cells.rows[1] == ("1", "128", "11.9 ms", "5.60 ms", "2.12× [2.06, 2.20]", "1.98× · 1.07×")
    assert cells.rows[3][1] == "2,048 *"
    assert cells.rows[-1] == ("32", "2,048", "n/a", "n/a", "n/a", "n/a")
    assert "batch 32, 2,048 tokens: out of memory" in cells.notes


def test_a_wide_interval_is_pointed_out(record):
    record["speed"][0] |= {"speedup": 2.0, "low": 1.7, "high": 2.2}
    assert speed_cells(typed(record)).rows[0][1] == "32 ~"


def test_a_point_may_carry_both_marks(record):
    record["speed"][3] |= {"speedup": 2.0, "low": 1.7, "high": 2.2}
    cells = speed_cells(typed(record))
    assert cells.rows[3][1] == "2,048 ~ *"
    assert sum(note.startswith(("~", "*")) for note in cells.notes) == 2


def test_speeds_on_one_thread_stand_below(record):
    """Of those that were measured on more as well; quality does not depend on threads."""
    for alternative in record["alternatives"][:2]:
        points = [point | {"threads": 2} for point in alternative["speed"]]
        alone = [point | {"threads": 1, "speedup": 7.0, "student_ms": point["teacher_ms"] / 5} for point in points]
        alternative["speed"] = [*alone, *points]
    cells = alternative_cells(typed(record))
    names = [row[0] for row in cells.rows]
    assert names[4:] == ["student, one thread", "teacher in ONNX Runtime fp32, one thread", f"{names[2]}, one thread"]
    assert cells.rows[0][4:] == ("1.71×", "1.78×", "2.12×", "2.78×")
    assert cells.rows[2][4:] == ("3.27×", "2.93×", "2.29×", "1.76×")
    assert cells.rows[4][1:] == ("-", "-", "-", *["5.00×"] * 4)
    assert cells.rows[6][1:] == ("-", "-", "-", *["7.00×"] * 4)
    record["alternatives"][0]["speed"][0] |= {"speedup": None, "reason": "too slow"}
    assert "teacher in ONNX Runtime fp32, one thread, 24 tokens: too slow" in alternative_cells(typed(record)).notes
