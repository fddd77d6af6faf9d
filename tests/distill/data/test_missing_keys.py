"""Rows of JSON that lack a key: a missing value, as null is one, unless no row has the key."""

import json

import pytest

from distill.config.data_schema import DataConfig
from distill.data.columns import find_columns
from distill.data.readers import column_names, read_file
from distill.data.splits import load_data, resolve_task
from distill.utils.errors import UserError

ROWS = [{"text": f"some words {i}", "label": ("neg", "pos")[i % 2]} for i in range(40)]


def write(path, rows):
    lines = [json.dumps(row) for row in rows]
    path.write_text(f"[{', '.join(lines)}]" if path.suffix == ".json" else "\n".join(lines))
    return path


def without(key, *numbers):
    """Return the rows, counted from 1, of which some lack a key."""
    return [{k: v for k, v in row.items() if k != key or n not in numbers} for n, row in enumerate(ROWS, start=1)]


def load(path, **settings):
    data = DataConfig(dir=str(path), **settings)
    return load_data(resolve_task("custom", data), data)


@pytest.mark.parametrize("extension", ["jsonl", "json"])
@pytest.mark.parametrize("key", ["text", "label"])
@pytest.mark.parametrize("number", [1, 8, 40])
def test_a_missing_key_is_a_missing_value(tmp_path, extension, key, number):
    path = write(tmp_path / f"mine.{extension}", without(key, number))
    with pytest.raises(
        UserError, match=rf"mine\.{extension}, row {number}: column '{key}' is missing.*drop_incomplete"
    ):
        load(path)
    splits = load(path, drop_incomplete=True)
    used = sorted([*splits.train.ids, *splits.held_out.ids, *splits.validation["validation"].ids])
    assert used == [index for index in range(40) if index != number - 1]
    assert splits.notes == ("train: 1 of 40 rows (2.5 %) have no text or label: left out",)


def test_most_rows_may_lack_their_label(tmp_path, monkeypatch):
    """In whole chunks too, of which Arrow knows no type."""
    monkeypatch.setattr("distill.data.readers.ROWS_PER_CHUNK", 7)
    splits = load(write(tmp_path / "mine.jsonl", without("label", *range(1, 31))), drop_incomplete=True)
    assert len(splits.train) + len(splits.held_out) + len(splits.validation["validation"]) == 10


def test_a_missing_score_is_named(tmp_path):
    rows = [row | {"label": n / 7} for n, row in enumerate(ROWS)]
    del rows[4]["label"]
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(UserError, match="row 5: column 'label' is missing"):
        load(path, regression=True)
    assert len(load(path, regression=True, drop_incomplete=True).train) < 39


def test_keys_in_another_spelling_are_the_same_column(tmp_path):
    rows = [{" Text": row["text"], "LABEL": row["label"]} if n % 3 else row for n, row in enumerate(ROWS)]
    del rows[6]["label"]
    with pytest.raises(UserError, match="row 7: column 'LABEL' is missing"):
        load(write(tmp_path / "mine.jsonl", rows), text_columns=["text"])


def test_a_key_that_no_row_has_is_a_missing_column(tmp_path):
    path = write(tmp_path / "mine.jsonl", [{"text": "a"}, {"text": "b", "note": "c"}])
    with pytest.raises(UserError, match=r"mine\.jsonl has no column 'label'; its columns are text, note$"):
        list(read_file(path, ["text", "label"]))
    with pytest.raises(UserError, match=r"no column 'opinion'; its columns are text, note"):
        find_columns(path, ["text"], "opinion")


def test_columns_are_those_of_most_rows(tmp_path):
    """A key of a few rows neither is the text nor makes the text doubtful; a label may be in few."""
    rows = [{"review": "some words", "number": 1}, *({"review": f"words {n}", "comment": "x"} for n in range(2))]
    rows += [{"review": "more", "class": "a"}] * 3
    path = write(tmp_path / "mine.jsonl", rows)
    assert column_names(path) == ["review", "number", "comment", "class"]
    assert column_names(path, 0.5) == ["review", "class"]
    assert find_columns(path, None) == (("review",), "class")
    path = write(tmp_path / "few.jsonl", [*rows[:3], rows[3]])
    assert find_columns(path, ["review"]) == (("review",), "class")
    path = write(tmp_path / "sparse.jsonl", [*[row | {"score": 3} for row in ROWS], {"text": "a", "score": 1}])
    assert find_columns(path, None) == (("text",), "label")
