import dataclasses

import numpy as np
import pytest
import torch
from transformers import BertTokenizer

from distill.data.batching import TokenizedExamples, collate, length_grouped_batches, sorted_batches
from distill.data.splits import Examples
from distill.data.tokenization import tokenize

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d")


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})


def examples_of(texts, labels=None):
    labels = np.zeros(len(texts), np.int64) if labels is None else np.asarray(labels)
    return Examples(np.arange(len(texts)), texts, labels)


def packed(*lengths):
    """Examples with distinct token ids, the second half of each in the second text."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    types = np.concatenate([(np.arange(length) >= length // 2) for length in lengths]).astype(np.uint8)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return TokenizedExamples(ids, types, offsets, np.arange(len(lengths)), 10 + np.arange(len(lengths)))


def test_tokens_of_texts_and_pairs(tokenizer):
    tokens = tokenize(examples_of([("a b",), ("c",)], [1, 0]), tokenizer, 16)
    assert tokens.token_ids.tolist() == [2, 5, 6, 3, 2, 7, 3]
    assert tokens.offsets.tolist() == [0, 4, 7]
    assert tokens.lengths.tolist() == [4, 3]
    assert tokens.labels.tolist() == [1, 0]
    pair = tokenize(examples_of([("a b", "c")]), tokenizer, 16)
    assert pair.token_ids.tolist() == [2, 5, 6, 3, 7, 3]
    assert pair.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1]
    assert (pair.token_ids.dtype, pair.token_type_ids.dtype, pair.offsets.dtype) == (np.int32, np.uint8, np.int64)


@pytest.mark.parametrize("max_length", [8, 13])
def test_what_is_longer_than_max_length_is_cut_at_the_end(tokenizer, max_length):
    long, short = tokenize(examples_of([("a b c d " * 10,), ("a",)]), tokenizer, max_length).lengths
    assert (long, short) == (max_length, 3)
    whole = tokenize(examples_of([("a b c d " * 10,)]), tokenizer, 100).token_ids
    cut = tokenize(examples_of([("a b c d " * 10,)]), tokenizer, max_length).token_ids
    assert cut.tolist() == [*whole[: max_length - 1], 3]
    pair = tokenize(examples_of([("a " * 20, "b")]), tokenizer, max_length).token_ids
    assert pair.tolist() == [2, *[5] * (max_length - 4), 3, 6, 3]


class OwnTokenizer(BertTokenizer):
    """A class that encodes in its own way."""

    calls = 0

    def _encode_plus(self, *arguments, **settings):
        self.calls += 1
        return super()._encode_plus(*arguments, **settings)


@pytest.mark.parametrize("max_length", [None, 7])
def test_the_short_way_to_tokens_is_taken_where_the_class_has_no_own_and_gives_the_same(
    tokenizer, max_length, monkeypatch
):
    monkeypatch.setattr("distill.data.tokenization.TEXTS_PER_CALL", 3)
    own = OwnTokenizer(vocab=tokenizer.get_vocab())
    tokenizer("a", "b", padding="max_length", truncation=True, max_length=30)  # settings that nobody wants to inherit
    for texts in [[("a b " * i,) for i in range(8)], [("a b " * i, "c d") for i in range(8)]]:
        short, long = (tokenize(examples_of(texts), each, max_length) for each in (tokenizer, own))
        for name in ("token_ids", "token_type_ids", "offsets"):
            assert getattr(short, name).tolist() == getattr(long, name).tolist()
        assert short.num_cut == long.num_cut == (0 if max_length is None else 5 if len(texts[0]) == 1 else 6)
    assert own.calls == 6


def test_chunks_join_seamlessly(tokenizer, monkeypatch):
    texts = [("a " * (i % 7),) for i in range(50)]
    at_once = tokenize(examples_of(texts), tokenizer, 6)
    monkeypatch.setattr("distill.data.tokenization.TEXTS_PER_CALL", 7)
    monkeypatch.setattr("distill.data.tokenization.PROGRESS_BAR_FROM", 10)
    in_chunks = tokenize(examples_of(texts), tokenizer, 6)
    for name in ("token_ids", "token_type_ids", "offsets"):
        assert np.array_equal(getattr(at_once, name), getattr(in_chunks, name))


@pytest.mark.parametrize("count", [1, 7, 8, 1003])
def test_an_epoch_has_every_example_once(count):
    lengths = np.random.default_rng(0).integers(3, 60, count)
    batches = length_grouped_batches(lengths, 8, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(count))
    assert sorted(map(len, batches), reverse=True) == [8] * (count // 8) + [count % 8] * (count % 8 > 0)


def test_epochs_differ_and_repeat_with_their_seed():
    lengths = np.random.default_rng(0).integers(3, 60, 200)

    def epoch(seed, number):
        return [batch.tolist() for batch in length_grouped_batches(lengths, 8, seed=seed, epoch=number)]

    assert epoch(1, 0) == epoch(1, 0)
    assert epoch(1, 0) != epoch(1, 1)
    assert epoch(1, 0) != epoch(2, 0)
    assert epoch(0, 1) != epoch(1, 0)


def test_grouping_saves_most_padding_and_mixes_the_order():
    lengths = np.random.default_rng(0).integers(3, 120, 4000)
    batches = length_grouped_batches(lengths, 16, seed=0, epoch=0)
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded < 1.05 * lengths.sum()
    longest = [lengths[batch].max() for batch in batches]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


def test_inference_batches_are_longest_first():
    lengths = np.array([3, 9, 5, 9, 1])
    assert [batch.tolist() for batch in sorted_batches(lengths, 2)] == [[1, 3], [2, 0], [4]]


def test_inference_reads_no_more_tokens_at_once_than_fit():
    lengths = np.array([3, 40, 5, 17, 9, 1])  # with pads 8, 40, 8, 24, 16 and 8
    batches = [batch.tolist() for batch in sorted_batches(lengths, 3, max_tokens=32)]
    assert batches == [[1], [3], [4, 2], [0, 5]]
    assert [batch.tolist() for batch in sorted_batches(lengths, 3, max_tokens=None)] == [[1, 3, 4], [2, 0, 5]]


def test_collate_against_the_obvious_loop():
    examples = packed(3, 17, 1, 8)
    indices = np.array([1, 3, 2])
    batch, labels = collate(dataclasses.replace(examples, pad_token_id=99, pad_multiple=8), indices)
    assert batch["input_ids"].shape == (3, 24)
    for row, index in enumerate(indices):
        start, end = examples.offsets[index], examples.offsets[index + 1]
        length = end - start
        assert batch["input_ids"][row].tolist() == [*examples.token_ids[start:end], *[99] * (24 - length)]
        assert batch["token_type_ids"][row].tolist() == [*examples.token_type_ids[start:end], *[0] * (24 - length)]
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (24 - length)
    assert labels.tolist() == [1, 3, 2]
    assert all(tensor.dtype == torch.int64 for tensor in (*batch.values(), labels))


@pytest.mark.parametrize(("length", "on_cpu", "width"), [(1, 8, 8), (8, 8, 8), (9, 9, 16)])
def test_width_is_a_multiple_of_eight_or_on_a_cpu_eight_at_least(length, on_cpu, width):
    examples, both = packed(length, 1), np.array([0, 1])
    # "meta" stands for every device that is none: nothing is computed there.
    assert collate(examples, both, "meta")[0]["input_ids"].shape == (2, width)
    for device in (None, "cpu", torch.device("cpu")):
        assert collate(examples, both, device)[0]["input_ids"].shape == (2, on_cpu)


def test_scores_stay_float32():
    examples = packed(2, 3)
    scored = TokenizedExamples(
        examples.token_ids, examples.token_type_ids, examples.offsets, np.array([0.5, 4.5], np.float32), examples.ids
    )
    assert collate(scored, np.array([1]))[1].dtype == torch.float32
