"""Deterministic feature maps: closed forms, rows without features, and what can be learned."""

import math

import pytest
import torch
from torch.nn import functional as F

from students import ATTENTIONS, StudentConfig
from students.attention.ops import feature_maps
from students.attention.ops.feature_maps import HeadLinear
from students.attention.ops.random_features import seeded_generator

HEADS, HEAD_SIZE, LENGTH = 2, 16, 64


def mechanism(name, **options):
    sizes = {"hidden_size": HEADS * HEAD_SIZE, "num_attention_heads": HEADS, "max_position_embeddings": 128}
    module = ATTENTIONS[name](StudentConfig(attention=name, **sizes | options), layer=0)
    module.initialize_features()
    return module.double()


def inputs(length=LENGTH, scale=1.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    shape = (2, HEADS, length, HEAD_SIZE)
    query, key, value = (torch.randn(shape, generator=random, dtype=torch.float64) for _ in "qkv")
    return query * scale, key * scale, value


def test_linear_attention_is_that_of_the_paper():
    """At t = 1, elu(x) + 1 of the plain queries and keys, summed as idiap's fast_transformers does."""
    query, key, value = inputs()
    module = mechanism("linear")
    query_features, key_features = F.elu(query) + 1, F.elu(key) + 1
    sums = torch.einsum("nhsd,nhsm->nhmd", key_features, value)
    normaliser = 1 / torch.einsum("nhld,nhd->nhl", query_features, key_features.sum(2))
    expected = torch.einsum("nhld,nhmd,nhl->nhlm", query_features, sums, normaliser)
    torch.testing.assert_close(module.attend(query, key, value, None), expected, rtol=0, atol=1e-12)


def test_linear_attention_sums_in_full_precision():
    """φ reaches 100 here: the sum of 4096 keys' features passes fp16's 65504."""
    query, key, value = (tensor.half() for tensor in inputs(4096, scale=40.0))
    assert (F.elu(key) + 1).double().sum(2).max() > torch.finfo(torch.float16).max
    context = mechanism("linear").float().attend(query, key, value, None)
    exact = mechanism("linear").attend(query.double(), key.double(), value.double(), None)
    torch.testing.assert_close(context.double(), exact, rtol=0, atol=1e-3)


def test_t2r_features_fold_into_the_projection():
    """W_φ(W_q h + c)/√d + b is one linear map of the hidden state, as the paper uses it after training."""
    module = mechanism("t2r", num_features=8)
    hidden_states = torch.randn(2, 5, HEADS * HEAD_SIZE, generator=seeded_generator(0, 0, 1)).double()
    query = module.split_heads(module.query(hidden_states))
    features, _ = module.features(query, query, None)
    weight = module.query.weight.view(HEADS, HEAD_SIZE, -1)
    folded = module.feature_map.weight @ weight / HEAD_SIZE**0.5
    bias = (module.feature_map.weight @ module.query.bias.view(HEADS, HEAD_SIZE, 1)).squeeze(-1) / HEAD_SIZE**0.5
    once = torch.einsum("bnD,hrD->bhnr", hidden_states, folded) + (bias + module.feature_map.bias).unsqueeze(1)
    torch.testing.assert_close(once.relu(), features, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["t2r", "cosformer"])
def test_rows_without_features_are_finite_zeros(name):
    query, key, value = inputs()
    module = mechanism(name)
    query, key = (tensor.requires_grad_() for tensor in (-query.abs() - 9, key))
    context = module.attend(query, key, value, None)
    assert torch.equal(context, torch.zeros_like(context))
    context.sum().backward()
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()


def test_the_bias_of_t2r_keeps_small_rows_alive():
    query, key, value = inputs(scale=0.01)
    context = mechanism("t2r").attend(-query.abs(), -key.abs(), value, None)
    torch.testing.assert_close(context, value.mean(2, keepdim=True).expand_as(value), rtol=0, atol=0.2)


@pytest.mark.parametrize("name", ["t2r", "hedgehog"])
def test_learned_maps_start_at_the_identity(name):
    query, key, _ = inputs()
    query_features, key_features = mechanism(name).features(query, key, None)
    if name == "t2r":
        torch.testing.assert_close(query_features, (query / 4 + 0.1).relu())
        torch.testing.assert_close(key_features, (key + 0.1).relu())
    else:
        expected = torch.cat([query.softmax(-1), (-query).softmax(-1)], -1)
        torch.testing.assert_close(query_features, expected)
        torch.testing.assert_close(key_features.sum(-1), torch.full_like(key_features[..., 0], 2))


def test_other_widths_start_at_orthogonal_rows():
    linear = HeadLinear(HEADS, HEAD_SIZE, 24, bias=False)
    linear.initialize(seeded_generator(0, 0, 0))
    first = linear.weight[:, :HEAD_SIZE]
    torch.testing.assert_close(first @ first.mT, torch.eye(HEAD_SIZE).expand(HEADS, -1, -1), rtol=0, atol=1e-5)
    assert not torch.equal(linear.weight[0], linear.weight[1])


def test_cosformer_weighs_by_the_cosine_of_the_distance():
    query, key, value = inputs()
    positions = torch.arange(LENGTH, dtype=torch.float64)
    cosine = (math.pi * (positions[:, None] - positions) / 256).cos()  # M = 128
    weights = query.relu() @ key.relu().mT * cosine
    expected = weights / weights.sum(-1, keepdim=True) @ value
    torch.testing.assert_close(mechanism("cosformer").attend(query, key, value, None), expected, rtol=0, atol=1e-10)


def test_cosformer_counts_positions_over_real_tokens():
    query, key, value = inputs()
    module = mechanism("cosformer")
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[:, [0, 1, 30]] = False
    kept = module.attend(query[:, :, mask[0]], key[:, :, mask[0]], value[:, :, mask[0]], None)
    torch.testing.assert_close(module.attend(query, key, value, mask)[:, :, mask[0]], kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens_at_a_time", [1, 7, 100, 1000])
@pytest.mark.parametrize("name", ["linear", "t2r", "hedgehog", "cosformer"])
def test_parts_of_a_text_or_batch_make_the_whole(name, tokens_at_a_time, monkeypatch):
    """Without gradients a few tokens, or examples, are mixed at a time; the pads' NaN reach no real token."""
    elements = tokens_at_a_time * HEADS * HEAD_SIZE
    monkeypatch.setattr(feature_maps, "PART_ELEMENTS", elements)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    query, key, value = (tensor.repeat(3, 1, 1, 1) for tensor in inputs())
    mask = torch.ones(6, LENGTH, dtype=torch.bool)
    mask[0, 40:] = mask[1, :9] = mask[2, [0, 20, 63]] = False
    module = mechanism(name)
    whole = module.attend(query, key, value, mask)
    key[~mask[:, None].expand(-1, HEADS, -1)] = value[~mask[:, None].expand(-1, HEADS, -1)] = torch.nan
    real = mask[:, None, :, None].expand_as(value)
    with torch.no_grad():
        torch.testing.assert_close(module.attend(query, key, value, mask)[real], whole[real], rtol=0, atol=1e-12)
        unmasked = module.attend(query, key.nan_to_num(), value.nan_to_num(), None)
    torch.testing.assert_close(
        unmasked, module.attend(query, key.nan_to_num(), value.nan_to_num(), None), rtol=0, atol=1e-12
    )


def map_divergence(module, query, key, target):
    weights = module.attention_map(query, key, None)
    return (target * (target / weights).log()).sum(-1).mean()


def test_hedgehog_learns_spiky_maps_as_no_fixed_map_does():
    """200 steps of Adam on the maps of random queries and keys with logits of standard deviation 2."""
    torch.manual_seed(0)
    query, key, _ = inputs(scale=2**0.5)
    target = (query @ key.mT / HEAD_SIZE**0.5).softmax(-1)
    module = mechanism("hedgehog")
    optimizer = torch.optim.Adam(module.feature_parameters(), lr=2e-2)
    losses = []
    for _ in range(200):
        loss = map_divergence(module, query, key, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.65 * losses[0]
    fixed = {
        name: map_divergence(mechanism(name, num_features=2 * HEAD_SIZE), query, key, target).item()
        for name in ("linear", "performer")
    }
    uniform = float((target * (target * LENGTH).log()).sum(-1).mean())
    assert losses[-1] < min(uniform, *fixed.values())
