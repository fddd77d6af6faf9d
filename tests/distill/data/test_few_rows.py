"""A file of one's own with so few rows that none can be left for validation."""

import pytest
from helpers.data_folders import load, write

from distill.tasks import custom_task
from distill.utils.errors import UserError

TASK = custom_task(["text"], "label", ["x", "y"], False)


@pytest.mark.parametrize(("fraction", "needed"), [(0.1, 10), (0.3, 5)])
def test_how_many_rows_are_needed(tmp_path, fraction, needed):
    file = tmp_path / "mine.csv"
    for rows in (3, needed - 1, needed):
        texts, labels = [f"text {row}" for row in range(rows)], ["x", "y"] * rows
        write(file, {"text": texts, "label": labels[:rows]})
        if rows < needed:
            told = rf"mine.csv has {rows} usable rows.* give at least {needed} rows, or a folder"
            with pytest.raises(UserError, match=told):
                load(file, TASK, validation_fraction=fraction)
    assert set(load(file, TASK, validation_fraction=fraction)[2]["validation"].labels) == {0, 1}


def test_scores_are_no_labels(tmp_path):
    write(tmp_path / "mine.csv", {"text": ["a", "b", "c"], "label": [0.5, 1.5, 2.5]})
    task = custom_task(["text"], "label", None, True)
    assert len(load(tmp_path / "mine.csv", task)[2]["validation"]) == 1
