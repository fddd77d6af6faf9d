"""A run goes on with the data it was begun with: texts, columns, labels and positions, part by part."""

from dataclasses import replace

import numpy as np
import pytest

from distill.data.splits import Examples, Splits, data_checksums

PART = Examples(np.array([3, 5]), [("ab", "c"), ("d", "")], np.array([0, 1]))
SPLITS = Splits(PART, PART, {"validation_matched": PART, "validation_mismatched": PART})
OTHER = {
    "position": replace(PART, ids=np.array([3, 6])),
    "label": replace(PART, labels=np.array([1, 1])),
    "text": replace(PART, texts=[("ab", "c"), ("e", "")]),
    "column": replace(PART, texts=[("a", "bc"), ("d", "")]),
    "row": replace(PART, texts=[("ab", "cd"), ("", "")]),
    "order": replace(PART, texts=PART.texts[::-1]),
}


def test_the_same_data_has_the_same_checksums():
    again = Examples(np.array([3, 5]), [("ab", "c"), ("d", "")], np.array([0, 1]))
    assert data_checksums(replace(SPLITS, train=again)) == data_checksums(SPLITS)
    parts = ["train", "held-out train", "validation_matched", "validation_mismatched"]
    assert list(data_checksums(SPLITS)) == [f"data of {name}" for name in parts]


@pytest.mark.parametrize("what", OTHER)
def test_whatever_differs_has_another_checksum_in_its_part_alone(what):
    before = data_checksums(SPLITS)
    one_of_two = SPLITS.validation | {"validation_matched": OTHER[what]}
    for name, after in {
        "data of train": replace(SPLITS, train=OTHER[what]),
        "data of held-out train": replace(SPLITS, held_out=OTHER[what]),
        "data of validation_matched": replace(SPLITS, validation=one_of_two),
        "data of other tasks": replace(SPLITS, other=OTHER[what]),
    }.items():
        assert {key for key, _ in before.items() ^ data_checksums(after).items()} == {name}
