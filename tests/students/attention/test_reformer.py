"""Reformer: the hash, the limits, and the rounds that make up for what one sort misses."""

import pytest
import torch
from torch.nn import functional as F

from students import StudentConfig
from students.attention.reformer import ReformerAttention


def reformer(chunk=16, buckets=8, rounds=1, seed=0, hidden_size=48):
    torch.manual_seed(0)
    config = StudentConfig(
        attention="reformer",
        hidden_size=hidden_size,
        num_attention_heads=3,
        attention_options={"chunk": chunk, "buckets": buckets, "rounds": rounds},
        projection_seed=seed,
    )
    module = ReformerAttention(config, 0)
    module.initialize_features()
    return module.double()


def states(length=48, hidden_size=48):
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(2, length, hidden_size, generator=generator, dtype=torch.float64)


def full_attention(module, hidden_states):
    """What the hash approximates: softmax with shared queries and keys that does not look at itself."""
    query, value = (module.split_heads(getattr(module, name)(hidden_states)) for name in module.projections)
    logits = query @ F.normalize(query, dim=-1).mT / query.shape[-1] ** 0.5
    logits = logits.masked_fill(torch.eye(query.shape[2], dtype=torch.bool), -1e5)
    return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("chunk", [48, 64, 24])
def test_one_chunk_is_full_attention(chunk, rounds):
    module, hidden_states = reformer(chunk, rounds=rounds), states()
    expected = full_attention(module, hidden_states)
    torch.testing.assert_close(module(hidden_states)[0], expected, rtol=0, atol=1e-10)


def test_equal_directions_share_a_bucket_and_opposite_ones_never():
    module = reformer(rounds=4)
    query = torch.randn(2, 3, 10, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    buckets = module.buckets(query, None)
    assert buckets.shape == (4, 2, 3, 10)
    assert torch.equal(module.buckets(3 * query, None), buckets)
    assert (module.buckets(-query, None) != buckets).all()
    mask = torch.arange(10) < 7
    assert (module.buckets(query, mask.expand(2, -1))[..., 7:] == 8).all()


def test_the_nearer_the_likelier_the_same_bucket():
    module = reformer(rounds=64)
    generator = torch.Generator().manual_seed(3)
    query, other = (torch.randn(8, 3, 20, 16, dtype=torch.float64, generator=generator) for _ in range(2))
    query, other = F.normalize(query, dim=-1), F.normalize(other, dim=-1)
    rates = []
    for share in (0.0, 1.0, 3.0, 10.0):
        same = module.buckets(query, None) == module.buckets(other + share * query, None)
        rates.append(float(same.double().mean()))
    assert rates == sorted(rates)
    assert rates[0] < 0.2 < 0.6 < rates[-1]


def test_more_rounds_come_nearer_to_full_attention():
    hidden_states = states(96)
    errors = []
    for rounds in (1, 4, 16):
        module = reformer(chunk=8, rounds=rounds)
        expected = full_attention(module, hidden_states)
        errors.append(float(((module(hidden_states)[0] - expected).norm() / expected.norm()).detach()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_seed_and_layer_decide_the_hash():
    first = reformer().projection
    assert torch.equal(first, reformer().projection)
    assert not torch.equal(first, reformer(seed=1).projection)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": 7}, "buckets must be even, got 7"),
        ({"chunk": 0}, "chunk must be a whole number from 1 to"),
        ({"rounds": 0}, "rounds must be a whole number from 1 to"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        reformer(**options)
