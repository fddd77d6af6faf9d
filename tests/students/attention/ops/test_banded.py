"""The banded kernel that window mechanisms share, against a dense mask."""

import pytest
import torch
from torch.nn import functional as F

from students.attention.ops.banded import (
    Columns,
    band_columns,
    banded_attention,
    from_blocks,
    in_order,
    joint_attention,
    to_blocks,
    token_positions,
    with_neighbours,
)


def heads(length, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, length, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def near(length, radius):
    position = torch.arange(length)
    return (position[:, None] - position).abs() <= radius


@pytest.mark.parametrize(("length", "radius"), [(1, 0), (17, 0), (17, 1), (17, 4), (16, 4), (17, 16), (17, 100)])
@pytest.mark.parametrize("masked", [False, True])
def test_blocks_equal_a_dense_mask(length, radius, masked):
    query, key, value = heads(length)
    mask = torch.arange(length) < torch.tensor([length, (length + 1) // 2])[:, None]
    allowed = near(length, radius) & mask[:, None, None]
    expected = F.scaled_dot_product_attention(query, key, value, allowed)
    result = banded_attention(query, key, value, mask if masked else None, radius)
    example = slice(0, 2) if masked else slice(0, 1)
    real = mask[example, None, :, None].expand_as(result[example])
    torch.testing.assert_close(result[example][real], expected[example][real], rtol=0, atol=1e-12)


def test_a_wide_band_is_softmax():
    query, key, value = heads(11)
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(banded_attention(query, key, value, None, 10), expected, rtol=0, atol=1e-12)


def test_pads_hold_nan_and_get_no_gradient():
    mask = torch.arange(13) < torch.tensor([13, 6])[:, None]
    tensors = heads(13)
    expected = banded_attention(*tensors, mask, 3)[1, :, :6]
    for tensor in tensors:
        tensor[1, :, 6:] = torch.nan
    leaves = [tensor.requires_grad_() for tensor in tensors]
    context = in_order(lambda *heads_and_mask: banded_attention(*heads_and_mask, 3), mask, *leaves)
    torch.testing.assert_close(context[1, :, :6], expected)
    context[:, :, :6].sum().backward()
    for leaf in leaves:
        assert leaf.grad.isfinite().all()
        assert leaf.grad[1, :, 6:].abs().max() == 0


def test_other_columns_enter_the_same_softmax():
    query, key, value = heads(10)
    band = band_columns(query, key, value, None, 2)
    logits = to_blocks(query, 2) @ key[:, :, None, :3].mT / 2
    far = ~near(10, 2)[:, :3].unflatten(0, (5, 2))
    context = from_blocks(joint_attention([band, Columns(logits, value[:, :, None, :3], far)]), 10)
    allowed = near(10, 2)
    allowed[:, :3] = True
    expected = F.scaled_dot_product_attention(query, key, value, allowed)
    torch.testing.assert_close(context, expected, rtol=0, atol=1e-12)


def test_neighbours_are_zero_past_the_ends():
    blocks = to_blocks(torch.arange(1.0, 6.0)[:, None], 2)
    assert blocks.squeeze(-1).tolist() == [[1, 2], [3, 4], [5, 0]]
    assert with_neighbours(blocks, 1, 0).squeeze(-1).tolist() == [[0, 0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 0]]


def test_left_and_scattered_padding_keep_the_places_of_real_tokens():
    tensors = [tensor[:1] for tensor in heads(9)]
    expected = banded_attention(*tensors, None, 2)
    places = torch.tensor([1, 2, 5, 6, 7, 8, 10, 12, 13])
    mask = torch.zeros(1, 15, dtype=torch.bool)
    mask[:, places] = True
    assert token_positions(mask, 15)[0, places].tolist() == list(range(9))
    padded = [torch.full((1, 3, 15, 4), torch.nan, dtype=torch.float64) for _ in tensors]
    for target, source in zip(padded, tensors, strict=True):
        target[:, :, places] = source
    result = in_order(lambda *heads_and_mask: banded_attention(*heads_and_mask, 2), mask, *padded)
    torch.testing.assert_close(result[:, :, places], expected, rtol=0, atol=1e-12)


def test_equals_local_attention():
    reason = "needs the package local-attention, an oracle for benchmarks: pip install local-attention"
    oracle = pytest.importorskip("local_attention", reason=reason)
    tensors, mask = heads(24), torch.arange(24) < torch.tensor([24, 15])[:, None]
    local = oracle.LocalAttention(
        window_size=4, exact_windowsize=True, look_forward=1, use_rotary_pos_emb=False, autopad=True
    )
    expected = local(*tensors, mask=mask)
    result = banded_attention(*tensors, mask, 4)
    real = mask[:, None, :, None].expand_as(result)
    torch.testing.assert_close(result[real], expected[real], rtol=0, atol=1e-6)
