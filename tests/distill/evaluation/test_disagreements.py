"""Which examples teacher and student answer differently, in which order, with which names."""

import numpy as np
import pandas as pd

from distill.data.splits import Examples
from distill.evaluation.disagreements import find_disagreements
from distill.tasks import get_task


def examples(texts, labels):
    return Examples(np.arange(len(texts)), texts, np.array(labels))


def predicted(labels, teacher, student, splits=None):
    return pd.DataFrame(
        {
            "split": splits or ["validation"] * len(labels),
            "label": labels,
            "teacher_logits": list(np.array(teacher, np.float32)),
            "student_logits": list(np.array(student, np.float32)),
        }
    )


def test_the_surest_contradiction_comes_first():
    frame = predicted([1, 0, 1], [[0, 1], [2, 0], [0, 3]], [[0.1, 0], [1, 0], [4, 0]])
    found = find_disagreements(get_task("sst2"), frame, {"validation": examples([("a",), ("b",), ("c",)], [1, 0, 1])})
    assert found == [
        {"text": ("c",), "label": "positive", "teacher": "positive", "student": "negative"},
        {"text": ("a",), "label": "positive", "teacher": "positive", "student": "negative"},
    ]


def test_scores_by_difference():
    frame = predicted([1.0, 5.0], [[1.5], [4.0]], [[1.0], [2.25]])
    found = find_disagreements(get_task("stsb"), frame, {"validation": examples([("a", "b"), ("c", "d")], [1.0, 5.0])})
    assert [example["text"] for example in found] == [("c", "d"), ("a", "b")]
    assert found[0] == {"text": ("c", "d"), "label": "5.00", "teacher": "4.00", "student": "2.25"}


def test_two_splits_keep_their_texts():
    splits = ["validation_matched", "validation_mismatched"]
    frame = predicted([0, 0], [[1, 0, 0], [1, 0, 0]], [[1, 0, 0], [0, 0, 1]], splits)
    validation = {
        "validation_mismatched": examples([("x", "y")], [0]),
        "validation_matched": examples([("m", "n")], [0]),
    }
    (found,) = find_disagreements(get_task("mnli"), frame, validation)
    assert found["text"] == ("x", "y")
    assert found["student"] == "contradiction"


def test_agreement_is_empty():
    frame = predicted([0], [[1, 0]], [[1, 0]])
    assert find_disagreements(get_task("sst2"), frame, {"validation": examples([("a",)], [0])}) == []
