"""Rows with any number of labels: every form that people keep them in is read alike, and what is none is refused."""

import json

import numpy as np
import pandas
import pytest
from helpers.topics import FORMS, NAMES, topics, write_topics

from distill.config.data_schema import DataConfig
from distill.data.columns import found_in_words
from distill.data.inspection import inspect_data
from distill.data.splits import load_data, resolve_task
from distill.utils.errors import UserError

ROWS = 60


def own(path, **settings):
    return DataConfig(dir=str(path), multi_label=True, **settings)


def read(path, **settings):
    """Return the task and the splits of a file."""
    data = own(path, **settings)
    task = resolve_task("custom", data)
    return task, load_data(task, data)


def all_rows(splits):
    """Return ids and labels of every row, in the order of the file."""
    parts = [splits.train, splits.held_out, *splits.validation.values()]
    order = np.argsort(np.concatenate([part.ids for part in parts]))
    return np.concatenate([part.labels for part in parts])[order]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(form, tmp_path):
    names = list(NAMES) if form == "indices" else None
    task, splits = read(write_topics(tmp_path, form, ROWS), label_names=names)
    assert (task.label_names, task.num_labels, task.metrics) == (NAMES, 5, ("micro_f1", "macro_f1"))
    assert task.problem_type == "multi_label_classification"
    expected = [[float(name in labels) for name in NAMES] for labels in topics(ROWS)[1]]
    found = all_rows(splits)
    assert found.dtype == np.float32
    assert found.tolist() == expected


def test_an_untold_column_of_zero_and_one_is_told(tmp_path):
    path = write_topics(tmp_path, "columns", ROWS)
    task, _ = read(path)
    assert task.indicator_columns == NAMES
    found = found_in_words(task, None, "label")
    assert found == "columns found: texts 'text', label 'account', 'billing', 'delivery', 'other', 'technical'"
    assert found_in_words(task, ["text"], list(NAMES)) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"label_names": ["technical", "account"]},
        {"label_column": ["technical", "account"]},
        {"label_column": ["account", "technical"], "label_names": ["technical", "account"]},
        {"label_column": [" Technical", "ACCOUNT"]},
    ],
)
def test_columns_may_be_chosen_and_ordered(settings, tmp_path):
    task, splits = read(write_topics(tmp_path, "columns", ROWS), **settings)
    assert task.indicator_columns == task.label_names == ("technical", "account")
    wanted = [[float(name in labels) for name in ("technical", "account")] for labels in topics(ROWS)[1]]
    assert all_rows(splits).tolist() == wanted


def test_a_column_that_lists_labels_goes_before_zeros_and_ones(tmp_path):
    texts, labels = topics(ROWS)
    frame = pandas.DataFrame({"text": texts, "seen": [0, 1] * (ROWS // 2), "open": 1, "tags": labels})
    frame.to_parquet(tmp_path / "mine.parquet")
    assert read(tmp_path / "mine.parquet")[0].label_column == "tags"


def test_one_of_zeros_and_ones_may_have_a_usual_name(tmp_path):
    frame = pandas.DataFrame({"text": [f"text {row}" for row in range(ROWS)], "target": 0, "insult": 0, "threat": 0})
    for column, step in (("target", 2), ("insult", 3), ("threat", 5)):
        frame.loc[frame.index % step == 0, column] = 1
    frame.to_csv(tmp_path / "mine.csv", index=False)
    assert read(tmp_path / "mine.csv")[0].indicator_columns == ("target", "insult", "threat")


def test_what_stands_between_labels_is_found_by_the_names_that_are_given(tmp_path):
    labels = ["a|b, c|d", "c|d", "a|b", ""] * 15
    pandas.DataFrame({"text": [f"text {row}" for row in range(60)], "tags": labels}).to_csv(tmp_path / "mine.csv")
    task, splits = read(tmp_path / "mine.csv", label_names=["a|b", "c|d"], text_columns=["text"])
    assert task.label_separator == ","
    assert all_rows(splits)[:4].tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]


def test_the_separator_of_train_is_that_of_validation(tmp_path):
    """A name that holds another mark, and stands alone in validation, is not cut there."""
    texts = [f"text {row}" for row in range(40)]
    several, single = ["food, drinks|sport", "sport", "food, drinks", ""], ["food, drinks", ""]
    for name, tags in (("train", several * 10), ("validation", single * 20)):
        pandas.DataFrame({"text": texts, "tags": tags}).to_csv(tmp_path / f"{name}.csv", index=False)
    task, splits = read(tmp_path)
    assert task.label_names == ("food, drinks", "sport")
    assert splits.validation["validation"].labels[:2].tolist() == [[1, 0], [0, 0]]


def test_rows_that_say_nothing_are_left_out_on_request_and_rows_without_labels_stay(tmp_path):
    rows = [{"text": f"text {row}", "tags": [["a", "b"], ["a"], [], None][row % 4]} for row in range(80)]
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError, match=r"row 4: column 'tags' is missing; write \[\] where there is none, or --data"):
        read(tmp_path / "mine.jsonl")
    _, splits = read(tmp_path / "mine.jsonl", drop_incomplete=True)
    assert len(all_rows(splits)) == 60
    assert [note for note in splits.notes if "no label, and say" in note] == [
        "train: 20 of 60 rows (33.3 %) have no label, and say that there is none"
    ]


def jsonl(rows):
    return "jsonl", "".join(
        json.dumps({"text": f"text {number}", "tags": row}) + "\n" for number, row in enumerate(rows)
    )


def csv(header, rows):
    return "csv", f"{header}\n" + "".join(f"text {number},{row}\n" for number, row in enumerate(rows))


WRONG = {
    "one label a row": (csv("text,tags", ["a", "b"] * 20), {}, "no row of column 'tags' holds several labels"),
    "one number a row": (jsonl([1, 2] * 20), {}, "no row of column 'tags' holds several labels"),
    "one label in all": (jsonl([["a"], []] * 20), {}, "fewer than two different labels"),
    "objects": (jsonl([{"a": 1, "b": 0}] * 20), {}, "row 1: column 'tags' holds struct.* values, not lists of labels"),
    "lists of lists": (jsonl([[["a"]], [["b"]]] * 20), {}, "holds list.* values, not lists of labels"),
    "null in a list": (jsonl([["a", "b"], ["a", None]] * 20), {}, "holds something that is no label"),
    "text and list": (jsonl([["a", "b"], "a"] * 20), {}, "column 'tags' mixes types"),
    "a torn list": (csv("text,tags", ["['a' 'b']", "['a'  b]"] * 20), {}, r"\['a'  b\]. is not a list"),
    "unknown label": (
        jsonl([["good", "bad"], ["goood"]] * 20),
        {"label_names": ["good", "bad"]},
        "row 2: column 'tags' holds 'goood'; .*did you mean 'good'",
    ),
    "index too high": (jsonl([[0, 1], [2]] * 20), {"label_names": ["x", "y"]}, "row 2: label 2 is outside 0 to 1"),
    "a share in a column": (
        csv("text,a,b", ["0,1", "0.7,1"] * 20),
        {"label_column": ["a", "b"]},
        "row 2: column 'a' holds '0.7', not 0 or 1",
    ),
    "nothing in a column": (
        csv("text,a,b", ["0,1", "1,"] * 20),
        {"label_column": ["a", "b"]},
        "row 2: column 'b' is missing; write 0 where there is none",
    ),
    "a column that is not there": (csv("text,a,b", ["0,1"] * 9), {"label_column": ["a", "c"]}, "no column 'c'"),
    "names that are no columns": (
        csv("text,a,b", ["0,1", "1,0"] * 20),
        {"label_column": ["a", "b"], "label_names": ["x", "y"]},
        "data.label_names: a 0/1 column is called as its label",
    ),
    "one column": (csv("text,a,b", ["0,1", "1,0"] * 20), {"label_column": ["a"]}, "two or more different labels"),
    "no column of labels": (csv("text,a,b", ["3,1", "1,0"] * 20), {}, "hold the labels is not plain; .*text, a, b"),
    "nothing to learn": (csv("text,a,b", ["1,0"] * 40), {}, "train: every row has the same labels"),
    "no label anywhere": (csv("text,a,b", ["0,0"] * 40), {}, "train: none of the rows .* has a label"),
    "nothing to choose a threshold on": (
        csv("text,a,b", ["0,0"] * 37 + ["1,1", "0,1", "1,0"]),
        {"held_out_fraction": 0.01},
        "none of the rows .* has a label",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_set_of_labels_is_refused_in_one_line(name, tmp_path):
    (extension, content), settings, message = WRONG[name]
    (tmp_path / f"mine.{extension}").write_text(content)
    with pytest.raises(UserError, match=message) as refusal:
        read(tmp_path / f"mine.{extension}", **settings)
    assert "\n" not in str(refusal.value)


def test_a_list_without_multi_label_names_the_way(tmp_path):
    path = write_topics(tmp_path, "lines", ROWS)
    with pytest.raises(UserError, match=r"--data\.multi_label true"):
        resolve_task("custom", DataConfig(dir=str(path), label_column="tags"))


def test_every_label_gets_its_share_of_every_split(tmp_path):
    _, splits = read(write_topics(tmp_path, "columns", 1200), held_out_fraction=0.2, validation_fraction=0.2)
    whole = all_rows(splits).mean(0)
    for part in (splits.train, splits.held_out, *splits.validation.values()):
        assert np.abs(part.labels.mean(0) - whole).max() < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_a_label_of_few_rows_is_in_train(seed, tmp_path):
    labels = [["a"], ["b"], ["a", "b"], []] * 25
    for row, rare in ((3, "c"), (17, "c"), (40, "d")):
        labels[row] = [*labels[row], rare]
    path = tmp_path / "mine.parquet"
    pandas.DataFrame({"text": [f"text {row}" for row in range(100)], "tags": labels}).to_parquet(path)
    _, splits = read(path, seed=seed)
    assert (splits.train.labels.sum(0) > 0).all()


def test_a_label_that_train_lacks_is_refused_in_validation(tmp_path):
    for name, tags in (("train", [["a", "b"], ["a"]]), ("validation", [["a", "c"], ["b"]])):
        frame = pandas.DataFrame({"text": [f"{name} {row}" for row in range(40)], "tags": tags * 20})
        frame.to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match="validation holds examples of label 'c', train none; give train some of it"):
        read(tmp_path, label_names=["a", "b", "c"])


def test_labels_that_teach_nothing_are_told(tmp_path):
    rows = [
        {"text": f"text {row}", "always": 1, "never": 0, "half": row % 2, "once": int(row == 5)} for row in range(60)
    ]
    pandas.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    data = own(tmp_path / "mine.csv")
    task = resolve_task("custom", data)
    lines = "\n".join(finding.line for finding in inspect_data(task, data, load_data(task, data)))
    assert "label 'never' is in no row of train" in lines
    assert "label 'always' is in every row of train" in lines
    assert "label 'once' has one row in train" in lines
    assert "held-out train has 9 rows, few to choose the threshold" in lines
    assert "exactly one label" not in lines


def test_a_file_of_single_labels_in_lists_is_told(tmp_path):
    frame = pandas.DataFrame({"text": [f"text {row}" for row in range(60)], "tags": [["a"], ["b"]] * 30})
    frame.to_parquet(tmp_path / "mine.parquet")
    data = own(tmp_path / "mine.parquet")
    task = resolve_task("custom", data)
    lines = "\n".join(finding.line for finding in inspect_data(task, data, load_data(task, data)))
    assert "exactly one label; if that is so by nature, leave out data.multi_label" in lines


def test_a_test_file_that_hides_its_labels_is_no_validation(tmp_path):
    write_topics(tmp_path, "columns", ROWS).rename(tmp_path / "train.csv")
    hidden = pandas.DataFrame({"id": [1, 2], "text": ["x", "y"], **dict.fromkeys(NAMES, -1)})
    hidden.to_csv(tmp_path / "test.csv", index=False)
    _, splits = read(tmp_path)
    assert len(splits.validation["validation"]) > 2
