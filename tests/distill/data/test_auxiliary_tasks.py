"""Texts of other tasks: in the task's form, without labels, and never those that the task itself is scored on."""

import json

import numpy as np
import pytest

from distill.data.auxiliary_tasks import texts_of_other_tasks
from distill.data.splits import HIDDEN, Examples, Splits, data_checksums
from distill.tasks import TASKS
from distill.utils.errors import UserError


def examples(*texts: tuple[str, ...]) -> Examples:
    return Examples(np.arange(len(texts)), list(texts), np.zeros(len(texts), np.int64))


@pytest.fixture
def folder(tmp_path):
    """Two tasks whose labels are unreadable, and which share a text."""
    rows = {
        "cola": [{"sentence": f"cola {number}"} for number in range(4)],
        "mrpc": [{"sentence1": f"one {number}", "sentence2": "cola 1"} for number in range(3)],
        "rte": [{"sentence1": "a", "sentence2": "b"}],
    }
    for task, given in rows.items():
        (tmp_path / task).mkdir()
        lines = [json.dumps({**row, "label": "never read"}) for row in given]
        (tmp_path / task / "train.jsonl").write_text("\n".join(lines))
    return str(tmp_path)


def test_single_texts(folder):
    """Both texts of a pair count, each once; none stands in the task's own data."""
    own = Splits(examples(("cola 0",)), examples(("x",)), {"validation": examples(("one 2",))})
    found = texts_of_other_tasks(TASKS["sst2"], ["cola", "mrpc"], folder, own, None, 0)
    assert found.texts == [("cola 1",), ("cola 2",), ("cola 3",), ("one 0",), ("one 1",)]
    assert (found.labels == HIDDEN).all()
    changed = (
        data_checksums(own).items() ^ data_checksums(Splits(own.train, own.held_out, own.validation, found)).items()
    )
    assert [name for name, _ in changed] == ["data of other tasks"]


def test_pairs(folder):
    own = Splits(examples(("a", "c")), examples(("x", "y")), {"validation": examples(("one 0", "cola 1"))})
    found = texts_of_other_tasks(TASKS["stsb"], ["mrpc", "rte"], folder, own, None, 0)
    assert found.texts == [("one 1", "cola 1"), ("one 2", "cola 1"), ("a", "b")]
    assert np.isnan(found.labels).all()
    with pytest.raises(UserError, match=r"augmentation.tasks: cola has single texts, stsb pairs"):
        texts_of_other_tasks(TASKS["stsb"], ["cola"], folder, own, None, 0)


def test_at_most_so_many_of_each_and_the_same_for_a_seed(folder):
    own = Splits(examples(("x",)), examples(("y",)), {"validation": examples(("z",))})
    first, again = (texts_of_other_tasks(TASKS["sst2"], ["cola", "mrpc"], folder, own, 2, 1) for _ in range(2))
    assert first.texts == again.texts
    assert len(first) == 4
    assert texts_of_other_tasks(TASKS["sst2"], [], folder, own, 2, 1) is None


def test_nothing_new_is_an_error(folder):
    own = Splits(examples(("a", "b")), examples(("x", "y")), {})
    with pytest.raises(UserError, match=r"rte hold no text that mrpc lacks; leave them out"):
        texts_of_other_tasks(TASKS["mrpc"], ["rte"], folder, own, None, 0)
