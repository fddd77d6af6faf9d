"""Columns of somebody's own file: found where they are plain, asked for where they are not."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.data_folders import write

from distill.config.data_schema import DataConfig
from distill.data.columns import find_columns, found_in_words
from distill.data.splits import resolve_task
from distill.utils.errors import UserError

WORDS = ["some words", "more of them", "and these"]


def table(tmp_path, *columns, extension="csv", **values):
    path = tmp_path / f"mine.{extension}"
    write(path, {name: values.get(name, WORDS) for name in columns})
    return path


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("columns", "texts", "label"),
    [
        (("text", "label"), ("text",), "label"),
        (("id", "Review", "other", "Category"), ("Review",), "Category"),
        (("target", "premise", "hypothesis"), ("premise", "hypothesis"), "target"),
        (("question", "answer", "class"), ("question", "answer"), "class"),
        (("label", "score", "sentence2", "sentence1"), ("sentence1", "sentence2"), "label"),
        (("Label", "score", "what people wrote"), ("what people wrote",), "Label"),
    ],
)
def test_plain_names(tmp_path, columns, texts, label, extension):
    path = table(tmp_path, *columns, extension=extension, score=["1", "2", "3"])
    assert find_columns(path, None) == (texts, label)


@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
def test_the_only_column_of_words_is_the_text(tmp_path, extension):
    columns = {"number": [7, 8, 9], "day": ["2024-01-02", "2024-01-03", "1.5."], "said": WORDS, "label": [0, 1, 1]}
    write(tmp_path / f"mine.{extension}", columns)
    assert find_columns(tmp_path / f"mine.{extension}", None) == (("said",), "label")


def test_words_in_a_dictionary_column(tmp_path):
    pq.write_table(
        pa.table({"said": pa.array(WORDS).dictionary_encode(), "label": [0, 1, 1]}), tmp_path / "mine.parquet"
    )
    assert find_columns(tmp_path / "mine.parquet", None) == (("said",), "label")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("said", "answered", "label"), r"data\.text_columns.*besides the label it has said, answered; name one with"),
        (("text", "review", "label"), r"data\.text_columns.*it has text, review"),
        (("question1", "question2", "text", "label"), r"data\.text_columns.*question1, question2, text"),
        (("label",), r"data\.text_columns.*it has none"),
        (("text", "opinion"), r"data\.label_column.*no column 'label'; its columns are text, opinion; name the one"),
        (("text", "class", "score"), r"data\.label_column.*several like it; its columns are text, class, score"),
    ],
)
def test_what_is_not_plain_is_asked_for(tmp_path, columns, message):
    with pytest.raises(UserError, match=message) as refusal:
        find_columns(table(tmp_path, *columns), None)
    assert "\n" not in str(refusal.value)


def test_what_is_named_is_taken(tmp_path):
    path = table(tmp_path, "text", "said", "label", "class")
    assert find_columns(path, ["said"]) == (("said",), "label")
    assert find_columns(path, None, "class") == (("text",), "class")
    assert find_columns(table(tmp_path, "category", "class"), ["category"]) == (("category",), "class")
    with pytest.raises(UserError, match="no column 'opinion'; its columns are category, class"):
        find_columns(path, None, "opinion")


@pytest.mark.parametrize(
    ("extension", "content"), [("csv", b""), ("jsonl", b"\n"), ("parquet", b"PAR1"), ("csv", b"\xff,")]
)
def test_files_without_columns(tmp_path, extension, content):
    path = tmp_path / f"mine.{extension}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"mine\.{extension}") as refusal:
        find_columns(path, None)
    assert "\n" not in str(refusal.value)


def test_what_was_found_is_said(tmp_path):
    path = table(tmp_path, "review", "class")
    found = resolve_task("custom", DataConfig(dir=str(path)))
    assert found.label_names == tuple(sorted(WORDS))
    assert found_in_words(found, None, "label") == "columns found: texts 'review', label 'class'"
    assert found_in_words(found, ["review"], "label") == "columns found: texts 'review', label 'class'"
    assert found_in_words(found, ["review"], "class") is None


def test_one_column_may_be_given_without_brackets():
    assert DataConfig(text_columns="text") == DataConfig(text_columns=["text"])
