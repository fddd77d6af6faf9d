"""Tokens on disk are the tokens in memory, whichever part they came in, and what is torn is not taken for whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.data.augmentation import join
from distill.data.batching import collate
from distill.data.token_store import ARRAYS, SHAPE, bytes_on_disk, open_tokens, write_tokens
from distill.utils.errors import UserError

SETTINGS = {"pad_token_id": 7, "pad_multiple": 4, "padding_side": "left", "token_types": False}


@pytest.fixture
def parts(make_examples):
    own, *more = (make_examples(count, seed) for seed, count in enumerate((20, 9, 1, 30)))
    return replace(own, **SETTINGS), more


@pytest.mark.parametrize(("vocabulary_size", "id_type"), [(60, np.uint16), (2**16, np.uint16), (2**16 + 1, np.int32)])
def test_what_is_read_is_what_was_written(parts, tmp_path, vocabulary_size, id_type):
    own, more = parts
    write_tokens(tmp_path, own, iter(more), vocabulary_size)
    read, wanted = open_tokens(tmp_path), join([own, *more])
    assert read.token_ids.dtype == id_type
    for name in ARRAYS:
        assert np.array_equal(getattr(read, name), getattr(wanted, name)), name
    assert {name: getattr(read, name) for name in SETTINGS} == SETTINGS
    indices = np.random.default_rng(0).permutation(len(wanted))[:16]
    (inputs, labels), (expected, expected_labels) = collate(read, indices), collate(wanted, indices)
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    assert torch.equal(labels, expected_labels)
    files = sum((tmp_path / name).stat().st_size for name in ARRAYS)
    assert files == bytes_on_disk(len(wanted), len(wanted.token_ids), vocabulary_size) + 8


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 20, dtype=np.float32), np.ones((20, 3), np.float32)])
def test_labels_of_every_kind_are_hidden(parts, tmp_path, labels):
    own, more = parts
    write_tokens(tmp_path, replace(own, labels=labels), more, 60)
    read = open_tokens(tmp_path)
    assert read.labels.shape == (60, *labels.shape[1:])
    assert np.array_equal(read.labels[:20], labels)
    assert np.isnan(read.labels[20:]).all()


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


TORN = {
    **{f"{name} cut": (name, cut) for name in ARRAYS},
    "no tokens": ("token_ids", lambda path: path.unlink()),
    "empty": ("offsets", lambda path: path.write_bytes(b"")),
    "no shape": (SHAPE, lambda path: path.unlink()),
    "shape cut": (SHAPE, cut),
    "shape of nothing": (SHAPE, lambda path: path.write_text("{}")),
    "shape of others": (
        SHAPE,
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"shapes": {"token_ids": [1]}})),
    ),
}


@pytest.mark.parametrize("name", TORN)
def test_what_is_torn_is_refused(parts, tmp_path, name):
    own, more = parts
    write_tokens(tmp_path, own, more, 60)
    file, spoil = TORN[name]
    spoil(tmp_path / file)
    with pytest.raises(UserError, match=f"is torn.*; remove {tmp_path} to have the texts tokenised again"):
        open_tokens(tmp_path)
