"""Labels as a source writes them, and every way they can be wrong."""

import numpy as np
import pytest
from helpers.data_folders import folder_with, load, write

from distill.config.data_schema import DataConfig
from distill.data.splits import load_data, resolve_task, row_id_doubt
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


def own(tmp_path, train, validation=None, **settings):
    """Return the class names and the labels by name of train and validation of somebody's own folder."""
    for split, (extension, labels) in {"train": train, "validation": validation or train}.items():
        write(tmp_path / f"{split}.{extension}", {"text": [f"text {i}" for i in range(len(labels))], "label": labels})
    data = DataConfig(dir=str(tmp_path), **settings)
    task = resolve_task("custom", data)
    splits = load_data(task, data)
    parts = (splits.train, splits.held_out)
    found = sorted((int(i), task.label_names[y]) for part in parts for i, y in zip(part.ids, part.labels, strict=True))
    reported = [task.label_names[label] for label in splits.validation["validation"].labels]
    return task.label_names, [name for _, name in found], reported


@pytest.mark.parametrize(
    ("train", "validation", "names"),
    [
        (("csv", ["1.0", "2.0", "3.0"]), ("csv", ["1", "2", "3"]), ("1", "2", "3")),
        (("csv", ["1", "2", "3"]), ("csv", ["1.0", " 2", "3.00"]), ("1", "2", "3")),
        (("parquet", [1.0, 2.0, 3.0]), ("csv", ["1", "2", "3"]), ("1", "2", "3")),
        (("csv", ["1", "2", "3"]), ("parquet", [1.0, 2.0, 3.0]), ("1", "2", "3")),
        (("parquet", ["1", "1.0", "2"]), ("jsonl", [1, 1, 2]), ("1", "2")),
        (("csv", ["-1", "+1", "-1"]), ("jsonl", [-1, 1, -1]), ("-1", "+1")),
        (("csv", ["01", "02", "10"]), ("jsonl", [1, 2, 10]), ("01", "02", "10")),
        (("jsonl", [True, False, True]), ("csv", ["1", "0", "1"]), ("0", "1")),
        (("csv", ["True", "False", "True"]), ("jsonl", [True, False, True]), ("False", "True")),
        (("csv", ["neg ", "neg", " pos"]), ("csv", ["neg", "neg\u00a0", "pos"]), ("neg", "pos")),
        (("csv", ["9007199254740993", "9007199254740992", "1"]), None, ("1", "9007199254740992", "9007199254740993")),
        (("csv", ["1", "2", "other"]), ("csv", ["1.0", "2", "other "]), ("1", "2", "other")),
    ],
)
def test_equal_labels_are_one_class(tmp_path, train, validation, names):
    found, used, reported = own(tmp_path, train, validation)
    assert found == names
    assert used == reported


def test_a_number_is_no_index_where_names_are_numbers(tmp_path):
    for names, label in ((["1", "2", "3"], "0"), (["1", "2", "other"], "0"), (["0.5", "1.5"], "1")):
        columns = {"text": ["a", "b"], "label": [names[0], label]}
        write(tmp_path / "train.csv", columns)
        write(tmp_path / "validation.csv", columns)
        with pytest.raises(UserError, match=rf"row 2: label {label} is not among {names[0]}, {names[1]}"):
            load(tmp_path, custom_task(["text"], "label", names, False))


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "parquet"])
def test_fractions_are_taken_for_scores_in_every_format(tmp_path, extension):
    labels = [0.5, 3.0, 2.25, 4.5]
    with pytest.raises(UserError, match=r"holds 0\.5, not a class.*did you mean --data\.regression true\?"):
        own(tmp_path, (extension, labels))
    _, used, _ = own(tmp_path, (extension, labels), label_names=["0.5", "2.25", "3", "4.5"])
    assert used == ["0.5", "3", "2.25", "4.5"]


def test_words_beside_one_fraction_are_classes(tmp_path):
    assert own(tmp_path, ("csv", ["gpt", "3.5", "other"]))[0] == ("3.5", "gpt", "other")


@pytest.mark.parametrize("labels", [[[1, 0], [0, 1]], [{"a": 1}, {"a": 2}]])
def test_several_labels_a_row_are_refused_in_one_line(tmp_path, labels):
    with pytest.raises(UserError, match=r"holds (list|struct).* values, not labels; every row must have one label"):
        own(tmp_path, ("jsonl", labels))


def test_names_that_are_one_number_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.label_names: of 1, 1\.0 two are the same number"):
        own(tmp_path, ("csv", ["1", "1"]), label_names=["1", "1.0"])


@pytest.mark.parametrize(
    ("extension", "labels"),
    [
        ("csv", ["0", "", "1", "-1", "-", "0", "1"]),
        ("jsonl", [0, None, 1, -1, float("nan"), 0, 1]),
        ("parquet", [0, None, 1, -1, None, 0, 1]),
    ],
)
def test_rows_without_a_label_are_left_out_where_asked(tmp_path, extension, labels):
    data = {"label_names": ["0", "1"], "drop_incomplete": True}
    _, used, reported = own(tmp_path, (extension, labels), **data)
    assert used == reported == ["0", "1", "0", "1"]
    with pytest.raises(UserError, match=r"row 2: column 'label' is missing.*data\.drop_incomplete true"):
        own(tmp_path, (extension, labels), label_names=["0", "1"])


def test_minus_one_that_is_a_class_stays(tmp_path):
    names, used, _ = own(tmp_path, ("csv", ["-1", "0", "1", ""]), drop_incomplete=True)
    assert used == list(names) == ["-1", "0", "1"]


def test_of_many_classes_some_are_listed(tmp_path):
    labels = [str(number) for number in range(50)] * 2
    with pytest.raises(UserError, match=r"label 77 is not among 0, 1, .*, 19, \.\.\. \(30 more\)$"):
        own(tmp_path, ("csv", labels), ("csv", [*labels, "77"]))


def test_scores_that_are_all_the_same_teach_nothing(tmp_path):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [2.5, 2.5]}
    folder = folder_with(tmp_path, columns | {"label": [0.5, 5.0]}, "csv", "stsb")
    write(folder / "stsb" / "train.jsonl", columns)
    with pytest.raises(UserError, match=r"^train: every label is 2\.5 \(rows: 2\); give examples of at least two"):
        load(folder, STSB)


@pytest.mark.parametrize(("classes", "rows", "doubted"), [(9, 9, False), (10, 99, True), (10, 100, False)])
def test_labels_of_which_hardly_one_occurs_twice_may_be_numbers_of_rows(classes, rows, doubted):
    task = custom_task(["text"], "label", [f"c{number}" for number in range(classes)], False)
    doubt = row_id_doubt(task, rows)
    assert (doubt is not None) == doubted
    assert not doubted or doubt.startswith(f"column 'label' holds {classes} classes in {rows} rows: a row id")
