"""The embedded GLUE as a whole: columns, splits, shares of labels, and how little the words alone give away."""

from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from distill.data.synthetic_glue import EMBEDDED_TASKS, LABEL_NOISE, generate
from distill.utils.errors import UserError

COLUMNS = {
    "cola": ["sentence"],
    "sst2": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
    "qqp": ["question1", "question2"],
    "mnli": ["premise", "hypothesis"],
    "qnli": ["question", "sentence"],
    "rte": ["sentence1", "sentence2"],
    "wnli": ["sentence1", "sentence2"],
}
SHARES = {
    "cola": (0.3, 0.7),
    "sst2": (0.45, 0.55),
    "mrpc": (0.32, 0.68),
    "qqp": (0.63, 0.37),
    "mnli": (1 / 3, 1 / 3, 1 / 3),
    "qnli": (0.5, 0.5),
    "rte": (0.5, 0.5),
    "wnli": (0.5, 0.5),
}
# The most that a logistic regression on word counts may score; majority is max(SHARES).
BAG_OF_WORDS_CEILING = {
    "cola": 0.73,
    "sst2": 0.66,
    "mrpc": 0.83,
    "qqp": 0.7,
    "mnli": 0.62,
    "qnli": 0.68,
    "rte": 0.72,
    "wnli": 0.64,
}


@pytest.fixture(scope="module")
def tasks() -> dict:
    return {name: generate(name, 0) for name in EMBEDDED_TASKS}


def _texts(task: str, rows: list[dict]) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in COLUMNS[task]) for row in rows]


def test_all_nine_glue_tasks_and_a_hint_for_a_misspelt_one():
    assert set(EMBEDDED_TASKS) == set(COLUMNS)
    with pytest.raises(UserError, match="did you mean 'sst2'"):
        generate("sst-2", 0)


@pytest.mark.parametrize("task", COLUMNS)
def test_columns_and_splits_are_those_of_glue(tasks, task):
    validations = ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]
    assert list(tasks[task]) == ["train", *validations]
    for rows in tasks[task].values():
        assert all(list(row) == [*COLUMNS[task], "label", "idx"] for row in rows)
        assert [row["idx"] for row in rows] == list(range(len(rows)))
        assert all(
            text and text == text.lower().strip() and "  " not in text for pair in _texts(task, rows) for text in pair
        )
        assert all(isinstance(row["label"], float if task == "stsb" else int) for row in rows)
    assert len(tasks[task]["train"]) == 12000
    assert all(len(tasks[task][split]) == 1000 for split in validations)


@pytest.mark.parametrize("task", COLUMNS)
def test_no_text_stands_twice(tasks, task):
    keys = [tuple(sorted(texts)) for rows in tasks[task].values() for texts in _texts(task, rows)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("task", ["sst2", "stsb", "mnli"])
def test_the_seed_decides_everything(tasks, task):
    assert generate(task, 0) == tasks[task]
    assert generate(task, 1) != tasks[task]


def test_rows_are_the_same_on_every_machine(tasks):
    assert (
        tasks["sst2"]["train"][0]["sentence"] == "this script feels not honest and nobody found the sequel playful ."
    )
    assert tasks["rte"]["validation"][0]["sentence1"] == "the queen was followed by bob ."


@pytest.mark.parametrize("task", SHARES)
def test_label_shares(tasks, task):
    for rows in tasks[task].values():
        counts = Counter(row["label"] for row in rows)
        assert sorted(counts) == list(range(len(SHARES[task])))
        for label, share in enumerate(SHARES[task]):
            assert counts[label] / len(rows) == pytest.approx(share, abs=LABEL_NOISE)


def test_grades_of_stsb_are_real_values_over_the_whole_range(tasks):
    grades = np.array([row["label"] for row in tasks["stsb"]["train"]])
    assert grades.min() >= 0.0
    assert grades.max() == 5.0
    assert len(np.unique(grades)) > 1000
    assert all((np.floor(grades) == whole).mean() > 0.05 for whole in (1, 2, 3, 4))


@pytest.mark.parametrize("task", COLUMNS)
def test_a_bag_of_words_is_left_with_little(tasks, task):
    validation = "validation_matched" if task == "mnli" else "validation"
    train, test = tasks[task]["train"], tasks[task][validation]
    counts = CountVectorizer(token_pattern=r"\S+").fit([" ".join(texts) for texts in _texts(task, train)])

    def features(rows: list[dict]) -> np.ndarray:
        columns = zip(*_texts(task, rows), strict=True)
        return np.hstack([counts.transform(column).toarray() for column in columns]).astype(np.float32)

    labels, wanted = (np.array([row["label"] for row in rows]) for rows in (train, test))
    if task == "stsb":
        found = Ridge(10.0).fit(features(train), labels).predict(features(test))
        assert abs(np.corrcoef(found, wanted)[0, 1]) < 0.15
    else:
        found = LogisticRegression(C=0.3, max_iter=200).fit(features(train), labels).predict(features(test))
        assert (found == wanted).mean() < BAG_OF_WORDS_CEILING[task]
