"""The Sparse Transformer's two patterns: as under a dense mask, and everything within two hops."""

import pytest
import torch
from torch.nn import functional as F

from students import StudentConfig
from students.attention.sparse import SparseAttention


def sparse(pattern, stride=6, summary_tokens=2, **settings):
    options = {"pattern": pattern, "stride": stride, "summary_tokens": summary_tokens}
    config = StudentConfig(
        attention="sparse", hidden_size=24, num_attention_heads=3, attention_options=options, **settings
    )
    return SparseAttention(config, 0).double()


def dense_pattern(pattern, length, stride, summary_tokens):
    """The paper's sets, token by token."""
    allowed = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        for j in range(length):
            if pattern == "strided":
                allowed[i, j] = abs(i - j) < stride or (i - j) % stride == 0
            else:
                allowed[i, j] = i // stride == j // stride or stride - summary_tokens <= j % stride < stride
    return allowed


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
@pytest.mark.parametrize(("length", "stride"), [(48, 6), (47, 6), (13, 12), (12, 12), (7, 12), (20, 2)])
def test_blocks_equal_one_dense_mask(pattern, length, stride):
    module = sparse(pattern, stride)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 3, length, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    allowed = dense_pattern(pattern, length, stride, 2)
    assert torch.equal(module.receptive_field(length), allowed)
    expected = F.scaled_dot_product_attention(*tensors, allowed)
    torch.testing.assert_close(module.attend(*tensors, None), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_two_layers_connect_any_two_tokens(pattern):
    once = sparse(pattern).receptive_field(48).double()
    assert (once == 0).any()
    assert (once @ once > 0).all()


def test_summary_tokens_are_seen_by_all():
    assert sparse("fixed").receptive_field(48)[:, 4::6].all()
    assert sparse("fixed").receptive_field(48)[:, 5::6].all()


def test_stride_is_the_root_of_the_longest_input():
    assert sparse("strided", stride=0, max_position_embeddings=512).stride == 23
    assert sparse("strided", stride=0, max_position_embeddings=4096).stride == 64
    with pytest.raises(ValueError, match="summary_tokens must be 1 to the stride, 6, got 7"):
        sparse("fixed", summary_tokens=7)
