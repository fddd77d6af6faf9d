"""Labels as a source writes them, and every way they can be wrong."""

import numpy as np
import pytest
from helpers.data_folders import folder_with, load, write

from distill.tasks import TASKS, custom_task
from distill.utils.errors import UserError

STSB = TASKS["stsb"]


def test_labels_may_be_names(tmp_path):
    columns = {"sentence": ["a", "b", "c"], "label": ["positive", "negative", "positive"]}
    _, _, validation = load(folder_with(tmp_path, columns, "csv"))
    assert validation["validation"].labels.tolist() == [1, 0, 1]


def test_whole_numbers_written_as_floats_or_booleans(tmp_path):
    _, _, validation = load(folder_with(tmp_path, {"sentence": ["a", "b"], "label": [1.0, 0.0]}))
    assert validation["validation"].labels.tolist() == [1, 0]
    _, _, validation = load(folder_with(tmp_path, {"sentence": ["a", "b"], "label": [True, False]}))
    assert validation["validation"].labels.tolist() == [1, 0]


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_numbers_are_names_where_all_names_are_numbers(tmp_path, extension):
    columns = {"text": ["a", "b", "c", "d", "e"], "stars": [1, 5, 3, 1, 5]}
    write(tmp_path / f"train.{extension}", columns)
    write(tmp_path / f"validation.{extension}", columns)
    task = custom_task(["text"], "stars", ["5", "3", "1"], False)
    _, _, validation = load(tmp_path, task)
    assert validation["validation"].labels.tolist() == [2, 0, 1, 2, 0]


def test_regression_labels_are_float32(tmp_path):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": ["2.5", "0"]}
    _, _, validation = load(folder_with(tmp_path, columns, "csv", "stsb"), STSB)
    assert validation["validation"].labels.dtype == np.float32
    assert validation["validation"].labels.tolist() == [2.5, 0.0]
    assert validation["validation"].texts == [("a", "c"), ("b", "d")]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], r"row 2: label 2 is outside 0 to 1 \(0 = negative, 1 = positive\)"),
        ([-1, 0], "row 1: label -1 is outside"),
        ([-1, -1], "every label is -1.*labelled file"),
        ([0, None], "row 2: column 'label' is missing"),
        ([0.0, float("nan")], "row 2: label nan"),
        ([0, 0.5], r"row 2: label 0\.5 is not a whole number"),
        (["positive", "postive"], "row 2: column 'label' holds 'postive'.*did you mean 'positive'"),
        ([[0], [1]], "row 1: column 'label' holds list"),
        ([0, "one"], "row 2: column 'label' mixes types"),
        ([0, 2**70], "'label' mixes types|row 2"),
        ([0, 1e300], r"row 2: label 1e\+300 is too large for a class"),
        (["0", "1_0"], "row 2: column 'label' holds '1_0'"),
    ],
)
def test_wrong_class_labels(tmp_path, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        load(folder_with(tmp_path, {"sentence": ["a", "b"], "label": labels}))
    assert str(tmp_path / "sst2" / "validation.jsonl") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blank_label_of_a_csv_is_named(tmp_path):
    with pytest.raises(UserError, match="row 2: column 'label' is missing"):
        load(folder_with(tmp_path, b"sentence,label\na,1\nb,\n", "csv"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.0, 5.5], r"row 2: label 5\.5 is outside 0 to 5"),
        ([-1.0, -1.0], "every label is -1"),
        ([1.0, float("inf")], "row 2: label inf is not a number"),
        (["1.0", "high"], "row 2: column 'label' holds 'high', not a number"),
    ],
)
def test_wrong_scores(tmp_path, labels, message):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": labels}
    with pytest.raises(UserError, match=message):
        load(folder_with(tmp_path, columns, task="stsb"), STSB)


@pytest.mark.filterwarnings("error")
def test_a_label_beyond_whole_numbers_is_refused_without_a_warning(tmp_path):
    with pytest.raises(UserError, match="too large"):
        load(folder_with(tmp_path, b"sentence,label\na,1e300\n", "csv"))
