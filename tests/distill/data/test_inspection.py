"""What is said about data that can be read and is probably not what was meant."""

import numpy as np
import pytest
from helpers.data_folders import write

from distill.config.data_schema import DataConfig
from distill.data.inspection import inspect_data
from distill.data.splits import load_data, resolve_task
from distill.tasks import FEW_EXAMPLES
from distill.utils.errors import UserError
from distill.utils.findings import WARNING

ROWS = 400


def doubts(folder, labels, validation=None, texts=None, **settings):
    """Return the warnings on somebody's own data with these labels."""
    texts = texts or [f"text {i}" for i in range(len(labels))]
    write(folder / "train.csv", {"text": texts, "label": labels})
    validation = validation or {"text": [f"new {i}" for i in range(200)], "label": ["a", "b"] * 100}
    write(folder / "validation.csv", validation)
    data = DataConfig(dir=str(folder), **settings)
    task = resolve_task("custom", data)
    found = list(inspect_data(task, data, load_data(task, data)))
    assert all(finding.level == WARNING and "\n" not in finding.line for finding in found)
    return [finding.line for finding in found]


def open_alone(folder):
    data = DataConfig(dir=str(folder), max_train_examples=50)
    return load_data(resolve_task("custom", data), data)


def test_plain_data_is_in_order(tmp_path):
    assert doubts(tmp_path, ["a", "b"] * 200) == []


@pytest.mark.parametrize(("one", "other"), [("neg", "Neg"), ("very good", "very  good"), ("caf\u00e9", "cafe\u0301")])
def test_names_that_are_nearly_equal(tmp_path, one, other):
    (found,) = doubts(tmp_path, ["a", "b", one, other] * 100)
    assert f"classes {min(one, other)!r} and {max(one, other)!r} differ in case, spaces" in found


@pytest.mark.parametrize("mark", ["-1", "-"])
def test_marks_of_rows_without_a_label(tmp_path, mark):
    labels, validation = ["0", "1", "2", mark] * 100, {"text": ["x"] * 200, "label": ["0", "1"] * 100}
    (found,) = doubts(tmp_path, labels, validation)
    assert f"{mark!r} is a class here, and often marks rows without a label" in found
    assert "--data.drop_incomplete true --data.label_names '[0, 1, 2]'" in found
    assert doubts(tmp_path, labels, validation, label_names=["0", "1", "2", mark]) == []
    # and the way out is one
    assert doubts(tmp_path, labels, validation, label_names=["0", "1", "2"], drop_incomplete=True) == []


def test_minus_one_against_one_is_no_mark(tmp_path):
    assert doubts(tmp_path, ["-1", "1"] * 200, {"text": ["x"] * 200, "label": ["-1", "1"] * 100}) == []


def test_classes_of_one_row(tmp_path):
    (found,) = doubts(tmp_path, ["a", "b"] * 200 + ["c", "d"])
    assert "classes 'c', 'd' have one row in train" in found


def test_a_row_id_for_a_label(tmp_path):
    labels = [f"{i % 50}" for i in range(ROWS)]
    (found,) = doubts(tmp_path, labels, {"text": [f"new {i}" for i in range(200)], "label": labels[:200]})
    assert "column 'label' holds 50 classes in 400 rows: a row id, or a score" in found
    with pytest.raises(UserError, match=r"column 'label' holds another label in every row: a row id, or a score"):
        doubts(tmp_path, list(range(ROWS)))
    write(tmp_path / "alone" / "train.csv", {"text": ["x"] * ROWS, "label": [max(i, 1) for i in range(ROWS)]})
    with pytest.raises(
        UserError, match=r"'12', .*\.\.\., train none; column 'label' holds 399 classes in 320 rows: a row id"
    ):
        open_alone(tmp_path / "alone")


def test_classes_are_counted_over_all_of_train(tmp_path):
    labels = [f"{i % 12}" for i in range(2000)]
    validation = {"text": ["x"] * 200, "label": ["0", "1"] * 100}
    assert doubts(tmp_path, labels, validation, max_train_examples=100) == []


def test_a_validation_that_was_trained_on(tmp_path):
    texts = [f"text {i}" for i in range(ROWS)]
    validation = {"text": [*texts[:20], *(f"new {i}" for i in range(180))], "label": ["a", "b"] * 100}
    (found,) = doubts(tmp_path, ["a", "b"] * 200, validation, texts)
    assert "20 of 200 texts of validation (10.0 %) stand in train too" in found


def test_pairs_are_compared_as_pairs(tmp_path):
    first, second = [f"a {i}" for i in range(ROWS)], [f"b {i}" for i in range(ROWS)]
    write(tmp_path / "train.csv", {"premise": first, "hypothesis": second, "label": ["a", "b"] * 200})
    write(tmp_path / "validation.csv", {"premise": first, "hypothesis": second[::-1], "label": ["a", "b"] * 200})
    data = DataConfig(dir=str(tmp_path))
    task = resolve_task("custom", data)
    assert list(inspect_data(task, data, load_data(task, data))) == []


@pytest.mark.parametrize("rows", [2, FEW_EXAMPLES - 1, FEW_EXAMPLES])
def test_few_rows_to_measure_on(tmp_path, rows):
    validation = {"text": [f"new {i}" for i in range(rows)], "label": ["a", *["b"] * (rows - 1)]}
    found = doubts(tmp_path, ["a", "b"] * 200, validation)
    assert len(found) == (rows < FEW_EXAMPLES)
    assert all(f"validation has {rows} rows" in line and "not to be trusted" in line for line in found)


def test_pairs_of_one_text(tmp_path):
    columns = {
        "premise": [f"a {i}" for i in range(ROWS)],
        "hypothesis": np.where(np.arange(ROWS) < 3, "", "b").tolist(),
    }
    write(tmp_path / "train.jsonl", columns | {"label": ["a", "b"] * 200})
    data = DataConfig(dir=str(tmp_path))
    task = resolve_task("custom", data)
    (found,) = [line.line for line in inspect_data(task, data, load_data(task, data)) if "validation" not in line.line]
    assert "train: 3 pairs have only one text; --data.drop_incomplete true" in found
