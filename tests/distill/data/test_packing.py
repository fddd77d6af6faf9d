"""Packed texts have all lengths, begin with [CLS], and consist of the examples."""

import numpy as np

from distill.data.batching import TokenizedExamples
from distill.data.packing import SHORTEST, mean_packed_length, pack

CLS, SEP = 1, 2


def examples(lengths=(5, 9, 14), labels=None):
    rows = [[CLS, *range(10 * index + 10, 10 * index + 8 + length), SEP] for index, length in enumerate(lengths)]
    types = [[0] * (len(row) - 3) + [1] * 3 for row in rows]
    labels = np.zeros(len(rows), np.int64) if labels is None else labels
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    tokens, kinds = np.concatenate(rows).astype(np.int32), np.concatenate(types).astype(np.uint8)
    return TokenizedExamples(tokens, kinds, offsets, labels, np.arange(len(rows)))


def test_lengths_are_spread_over_all_orders():
    packed = pack(examples(), 512, 4000, seed=0)
    lengths = packed.lengths
    assert lengths.min() == SHORTEST
    assert lengths.max() <= 512
    assert (lengths > 500).any()
    thirds = np.histogram(lengths, [64, 128, 256, 513])[0] / len(lengths)
    assert np.allclose(thirds, 1 / 3, atol=0.03)
    assert abs(lengths.mean() - mean_packed_length(512)) < 5


def test_texts_are_examples_one_after_the_other():
    source = examples()
    known = {
        tuple(source.token_ids[start:end]) for start, end in zip(source.offsets, source.offsets[1:], strict=False)
    }
    packed = pack(source, 80, 50, seed=1)
    for start, end in zip(packed.offsets, packed.offsets[1:], strict=False):
        tokens = packed.token_ids[start:end].tolist()
        assert tokens[0] == CLS
        assert tokens.count(CLS) == 1
        pieces, piece = [], []
        for token in tokens[1:]:
            piece.append(token)
            if token == SEP:
                pieces.append((CLS, *piece))
                piece = []
        assert set(pieces) <= known
        assert not piece or any(whole[1 : 1 + len(piece)] == tuple(piece) for whole in known)
    assert set(np.unique(packed.token_type_ids)) == {0, 1}


def test_labels_are_hidden_and_the_seed_decides():
    assert set(pack(examples(), 64, 3, seed=0).labels) == {-1}
    assert np.isnan(pack(examples(labels=np.ones(3, np.float32)), 64, 3, seed=0).labels).all()
    first, again, other = (pack(examples(), 100, 20, seed=seed).token_ids for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_model_of_few_positions_gets_texts_of_that_length():
    assert set(pack(examples(), 32, 5, seed=0).lengths) == {32}
    assert mean_packed_length(32) == 32
