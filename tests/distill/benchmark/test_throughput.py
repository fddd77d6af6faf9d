"""Tokens per second on real lengths, with a clock that counts computed positions instead of time."""

import numpy as np
import pytest
import torch

from distill.benchmark import throughput
from distill.benchmark.conditions import Conditions, Models
from distill.data.batching import TokenizedExamples


class Model(torch.nn.Module):
    """Moves the clock by ``cost`` per computed position; takes no token types, as DistilBERT."""

    def __init__(self, clock, cost):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.clock, self.cost = clock, cost

    def __deepcopy__(self, memo):
        return Model(self.clock, self.cost)

    def forward(self, input_ids, attention_mask):
        assert input_ids.shape == attention_mask.shape
        if self.cost is None:
            raise MemoryError
        self.clock.time += self.cost * input_ids.numel()


class Clock:
    time = 0.0

    def __call__(self):
        return self.time


def make_examples(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.ones(offsets[-1], np.int32)
    zeros = np.zeros(len(lengths), np.int64)
    return TokenizedExamples(tokens, tokens.astype(np.uint8), offsets, zeros, zeros)


def measure(lengths, *, costs=(3e-4, 1e-4), batch_size=4, seconds=10.0):
    clock = Clock()
    models = Models(*(Model(clock, cost) for cost in costs))
    conditions = Conditions("cpu", torch.float32, vocabulary_size=50)
    return throughput.measure_throughput(models, make_examples(lengths), conditions, batch_size, seconds, clock)


def test_real_tokens_are_counted_and_padding_is_not():
    point = measure([9, 10, 11, 12] * 6 + [16] * 8)  # batches of 4: 16, 16, and six of nearly one length each
    assert (point.num_examples, point.batch_size, point.dtype) == (32, 4, "float32")
    assert point.tokens_per_example == pytest.approx((42 * 6 + 128) / 32)
    assert point.padding == pytest.approx(1 - (252 + 128) / (4 * (12 + 12 + 11 + 10 + 10 + 9) + 128))
    assert point.teacher_tokens_per_second == pytest.approx(380 / (3e-4 * 384))
    assert (point.low, point.speedup, point.high) == pytest.approx((3, 3, 3))


def test_batches_of_long_texts_are_as_large_as_asked():
    assert measure([2000] * 640, batch_size=40, costs=(3e-5, 1e-5)).num_examples == 160  # four batches


def test_a_small_budget_takes_batches_evenly_among_the_lengths():
    lengths = np.repeat(np.arange(8, 168, 8), 4)  # 20 batches, one length each
    point = measure(lengths, seconds=0.5)
    assert point.num_examples == 16
    assert point.tokens_per_example == pytest.approx(lengths.mean(), rel=0.05)


def test_fewer_batches_than_wanted_are_all_taken():
    assert measure([4, 5, 6]).num_examples == 3


def test_out_of_memory_has_a_reason():
    point = measure([8] * 20, costs=(1e-4, None))
    assert (point.speedup, point.reason) == (None, "out of memory")
