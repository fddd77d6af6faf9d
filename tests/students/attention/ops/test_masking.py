"""The steps that mechanisms share against their slow, obvious forms: pads of any content, examples without tokens."""

import math

import pytest
import torch
from torch import Tensor

from students.attention.ops.masking import (
    blank_pads,
    feature_attention,
    feature_attention_map,
    fused_attention,
    masked_softmax,
    softmax_attention,
    softmax_map,
    stabilise_features,
    widen,
)

MASK = torch.tensor([[True, True, False, True, False], [False] * 5, [True] * 5])
"""(3, 5): pads in the middle and at the end, an example without real tokens, one without pads."""


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def spoil(tensor: Tensor) -> Tensor:
    """Put NaN where the pads are, as whatever stands there may become."""
    return tensor.masked_fill(~MASK[:, None, :, None], math.nan)


def weighted(weights: Tensor, value: Tensor) -> Tensor:
    """Sum the values (3, 2, 5, d) by weights (3, 2, M, 5), in loops, over real tokens alone."""
    out = torch.zeros(*weights.shape[:3], value.shape[-1], dtype=torch.float64)
    for example in range(3):
        for place in torch.nonzero(MASK[example]).flatten().tolist():
            out[example] += weights[example, :, :, place, None] * value[example, :, place, None]
    return out


def test_softmax_over_a_mask_is_that_of_what_is_left():
    logits = draw(3, 2, 4, 5).requires_grad_()
    weights = masked_softmax(logits, MASK[:, None, None, :])
    torch.testing.assert_close(weights[0, ..., [0, 1, 3]], logits[0, ..., [0, 1, 3]].softmax(-1))
    torch.testing.assert_close(weights[2], logits[2].softmax(-1))
    assert weights[0, ..., [2, 4]].abs().sum() == 0
    assert weights[1].abs().sum() == 0
    (weights * draw(3, 2, 4, 5, seed=1)).sum().backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(masked_softmax(logits, None, dim=2), logits.softmax(2))
    across = masked_softmax(logits[..., :4, :], MASK[:, None, :4, None], dim=2)
    torch.testing.assert_close(across[0].sum(1), torch.ones(2, 5, dtype=torch.float64))
    assert across[0, :, 2].abs().sum() == 0


@pytest.mark.parametrize("queries", [5, 3])
def test_softmax_attention_reads_real_tokens_alone(queries):
    query, key, value = draw(3, 2, queries, 4), draw(3, 2, 5, 4, seed=1), draw(3, 2, 5, 4, seed=2)
    exponentials = (query @ key.mT / 2).exp() * MASK[:, None, None, :]
    weights = exponentials / exponentials.sum(-1, keepdim=True).clamp(min=1e-300)
    torch.testing.assert_close(softmax_map(query, key, MASK), weights)
    value = spoil(value).requires_grad_()
    context = softmax_attention(query, key, value, MASK)
    torch.testing.assert_close(context, weighted(weights, value.detach()))
    context.sum().backward()
    assert value.grad.isfinite().all()
    unmasked = (query @ key.mT / 2).softmax(-1)
    torch.testing.assert_close(softmax_map(query, key, None), unmasked)
    values = draw(3, 2, 5, 4, seed=2)
    torch.testing.assert_close(softmax_attention(query, key, values, None), unmasked @ values)


def test_gradients_in_bf16_are_computed_in_fp32():
    query, key, value = (draw(3, 2, 5, 4, seed=seed, dtype=torch.bfloat16) for seed in range(3))
    mask = MASK[:, None, None, :] | ~MASK.any(-1)[:, None, None, None]
    wide = fused_attention(query.float(), key.float(), value.float(), mask)
    assert torch.equal(fused_attention(query, key, value, mask), wide.bfloat16())
    bias = torch.zeros(3, 1, 1, 5, dtype=torch.bfloat16).masked_fill(~mask, -1e4)
    assert torch.equal(fused_attention(query, key, value, bias), wide.bfloat16())
    assert torch.equal(softmax_attention(query, key, value, MASK)[2], wide[2].bfloat16())


def test_feature_attention_is_the_normalised_product():
    query, key, value = draw(3, 2, 5, 6).exp(), draw(3, 2, 5, 6, seed=1).exp(), draw(3, 2, 5, 4, seed=2)
    products = (query @ key.mT) * MASK[:, None, None, :]
    weights = products / products.sum(-1, keepdim=True).clamp(min=1e-6)
    context = feature_attention(query, spoil(key), spoil(value), MASK)
    torch.testing.assert_close(context, weighted(weights, value))
    torch.testing.assert_close(feature_attention_map(query, spoil(key), MASK), weights)
    torch.testing.assert_close(feature_attention_map(query, key, None).sum(-1), torch.ones(3, 2, 5).double())


def test_features_near_zero_fade_out_at_the_floor():
    query, key, value = torch.full((1, 1, 2, 3), 1e-2), torch.full((1, 1, 2, 3), 1e-2), torch.ones(1, 1, 2, 4)
    for floor, share in ((1e-6, 1.0), (6e-3, 0.1)):  # the weights of a row add up to 6e-4
        torch.testing.assert_close(feature_attention(query, key, value, None, floor), share * torch.ones(1, 1, 2, 4))
        shares = feature_attention_map(query, key, None, floor).sum(-1)
        torch.testing.assert_close(shares, share * torch.ones(1, 1, 2))
    nothing = torch.zeros(1, 1, 2, 3)
    assert feature_attention(nothing, key, value, None).abs().sum() == 0


def test_sums_of_features_in_half_precision_are_full_ones():
    query, key = (draw(1, 1, 300, 6, seed=seed).exp().half() for seed in (0, 1))
    value = draw(1, 1, 300, 4, seed=2).half()
    with torch.autocast("cpu", torch.bfloat16):
        context = feature_attention(query, key, value, None)
        weights = feature_attention_map(query, key, None)
    exact = feature_attention(query.double(), key.double(), value.double(), None)
    assert (context.dtype, weights.dtype) == (torch.float16, torch.float32)
    torch.testing.assert_close(context.double(), exact, rtol=0, atol=1e-3)
    torch.testing.assert_close(weights.double() @ value.double(), exact, rtol=0, atol=1e-5)
    assert [tensor.dtype for tensor in widen(query, value.double())] == [torch.float32] * 2
    assert widen(value.double())[0].dtype == torch.float64


@pytest.mark.parametrize("shift", [0.0, 300.0, -300.0])
def test_stabilised_features_give_the_sums_of_exponentials_back(shift):
    queries, keys = draw(3, 2, 5, 6), draw(3, 2, 5, 6, seed=1) + shift
    query, key, scale = stabilise_features(queries, keys.masked_fill(~MASK[:, None, :, None], 1e4), MASK)
    assert query.max() <= 1
    assert key.max() <= 1
    for example in (0, 2):
        for one in range(5):
            for other in torch.nonzero(MASK[example]).flatten().tolist():
                got = (query[example, :, one] * key[example, :, other]).sum(-1).log() + scale[example, :, one, 0]
                wanted = (queries[example, :, one] + keys[example, :, other]).logsumexp(-1)
                torch.testing.assert_close(got, wanted)
        real = key[example][:, MASK[example]]
        assert ((query[example] @ real.mT).sum(-1) >= 1 - 1e-12).all()
    assert key[~MASK.unsqueeze(1).expand(3, 2, 5)].abs().sum() == 0
    assert all(tensor.isfinite().all() for tensor in (query, key, scale))


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (3, 5, 4)])
def test_pads_become_zero_whatever_they_are(shape):
    tensor = draw(*shape)
    pads = ~(MASK[:, None] if len(shape) == 4 else MASK).expand(shape[:-1])
    blank = blank_pads(torch.where(pads[..., None], torch.tensor(math.inf), tensor), MASK)
    assert blank[pads].abs().sum() == 0
    assert torch.equal(blank[~pads], tensor[~pads])
    assert blank_pads(tensor, None) is tensor
