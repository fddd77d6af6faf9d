"""Task custom is made of somebody's own file."""

from types import SimpleNamespace

import pytest

from distill.data.splits import resolve_task
from distill.utils.errors import UserError


def data(**given):
    empty = dict.fromkeys(("dir", "text_columns", "label_names", "main_metric"))
    return SimpleNamespace(**(empty | {"label_column": "label", "regression": False, "multi_label": False} | given))


def test_custom_labels_are_found_in_train_and_sorted_as_numbers(tmp_path):
    (tmp_path / "train.csv").write_text("review,stars\na,10\nb,2\nc,10\n")
    task = resolve_task("custom", data(dir=str(tmp_path), text_columns=["review"], label_column="stars"))
    assert task.label_names == ("2", "10")
    assert task.metrics == ("accuracy", "macro_f1")


def test_custom_labels_that_are_words(tmp_path):
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "train.jsonl").write_text('{"a": "x", "label": "spam"}\n{"a": "y", "label": "ham"}\n')
    assert resolve_task("custom", data(dir=str(tmp_path), text_columns=["a"])).label_names == ("ham", "spam")


def test_custom_with_fractions_for_labels_suggests_regression(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"a": "x", "label": 0.5}\n{"a": "y", "label": 1.5}\n')
    with pytest.raises(UserError, match=r"0\.5.*data\.regression"):
        resolve_task("custom", data(dir=str(tmp_path), text_columns=["a"]))
    task = resolve_task("custom", data(dir=str(tmp_path), text_columns=["a"], regression=True))
    assert task.is_regression
    assert task.metrics == ("pearson", "spearmanr")


@pytest.mark.parametrize("given", [{}, {"dir": "somewhere"}])
def test_custom_needs_folder_and_columns(given):
    with pytest.raises(UserError, match=r"data\.(dir|text_columns)"):
        resolve_task("custom", data(**given))
