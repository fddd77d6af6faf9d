"""Nyströmformer: softmax attention with one landmark per token, the pseudoinverse, and transformers' own layer."""

import pytest
import torch
from torch.nn import functional as F
from transformers import NystromformerConfig
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from students import StudentConfig
from students.attention import nystrom


def attention(num_landmarks, convolution=0):
    config = StudentConfig(
        hidden_size=16,
        num_attention_heads=2,
        attention="nystrom",
        num_features=num_landmarks,
        attention_options={"convolution": convolution},
    )
    torch.manual_seed(0)
    module = nystrom.NystromAttention(config, layer=0)
    module.initialize_features()
    return module.double()


def inputs(length):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, length, 8, generator=random, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("num_landmarks", [12, 20])
def test_c4_one_landmark_per_token_and_a_true_inverse_is_softmax(monkeypatch, num_landmarks):
    monkeypatch.setattr(nystrom, "pseudo_inverse", torch.linalg.pinv)
    module, tensors = attention(num_landmarks), inputs(12)
    mask = torch.arange(12) < torch.tensor([[12], [5]])
    expected = F.scaled_dot_product_attention(*tensors, mask[:, None, None])
    real = mask[:, None].expand(-1, 2, -1)
    torch.testing.assert_close(module.attend_by_landmarks(*tensors, mask)[real], expected[real], rtol=0, atol=1e-6)


def test_up_to_as_many_tokens_as_landmarks_it_is_softmax_to_the_last_digit():
    """By the number of a text's own tokens: beside a longer one, padded on either side, and without any token."""
    module, (query, key, value) = attention(8, convolution=3), inputs(20)
    query, key, value = (torch.cat([tensor, tensor.flip(0)]) for tensor in (query, key, value))
    mask = torch.zeros(4, 20, dtype=torch.bool)
    mask[0, :8], mask[1, 12:], mask[2] = True, True, True
    mixed = module.attend(query, key, value, mask)
    expected = F.scaled_dot_product_attention(query, key, value, mask[:, None, None])
    for row in (0, 1):
        torch.testing.assert_close(mixed[row, :, mask[row]], expected[row, :, mask[row]], rtol=0, atol=1e-12)
    assert mixed[3].isfinite().all()
    long = module.attend_by_landmarks(query[2:3], key[2:3], value[2:3], None)
    torch.testing.assert_close(mixed[2:3], long, rtol=0, atol=1e-12)
    assert (long - expected[2:3]).abs().max() > 0.01
    nine = module.attend(*(tensor[:1, :, :9] for tensor in (query, key, value)), None)
    assert (
        nine - F.scaled_dot_product_attention(*(tensor[:1, :, :9] for tensor in (query, key, value)))
    ).norm() > 1e-3


@pytest.mark.parametrize("convolution", [0, 3])
def test_neither_padding_nor_batch_decides_in_longer_texts(convolution):
    """The contract's texts are shorter than its landmarks."""
    module, tensors = attention(4, convolution), inputs(20)
    if convolution:
        torch.nn.init.normal_(module.convolution)
    mask = torch.arange(20) < torch.tensor([[20], [9]])
    garbage = [tensor.masked_fill(~mask[:, None, :, None], torch.nan) for tensor in tensors]
    together = module.attend(*garbage, mask)
    for row, length in enumerate((20, 9)):
        alone = module.attend(*(tensor[row : row + 1, :, :length] for tensor in tensors), None)
        torch.testing.assert_close(together[row : row + 1, :, :length], alone, rtol=0, atol=1e-12)


def test_operations_of_short_texts_are_those_of_softmax():
    """64 landmarks; 4 N² D, of longer texts the paper's."""
    config = StudentConfig(attention="nystrom", num_features=64, hidden_size=384, num_attention_heads=12)
    core = nystrom.NystromAttention.core_flops
    assert [core(config, length) for length in (1, 64)] == [4 * 384, 4 * 64**2 * 384]
    assert core(config, 65) == 12 * 65 * 64 * 384 + 4 * 64**2 * 384 + 48 * 64**3 * 12


@pytest.mark.parametrize(("diagonal", "limit"), [(4.0, 1e-4), (0.0, 0.03)])
def test_iteration_finds_the_pseudoinverse(diagonal, limit):
    """Nearly, of maps with a diagonal; six iterations leave a few percent of an almost singular one."""
    logits = torch.randn(20, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = (logits + diagonal * torch.eye(16)).softmax(-1)
    error = matrix @ nystrom.pseudo_inverse(matrix) @ matrix - matrix
    assert (error.norm(dim=(-1, -2)) / matrix.norm(dim=(-1, -2))).max() < limit


def test_one_matrix_does_not_change_the_inverse_of_another():
    matrices = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0)).softmax(-1)
    together = nystrom.pseudo_inverse(torch.stack([matrices[0], 100 * matrices[1]]))
    torch.testing.assert_close(together[0], nystrom.pseudo_inverse(matrices[0]))


def test_rows_sum_to_nearly_one():
    query, key, value = inputs(40)
    ones = attention(8).attend(query, key, torch.ones_like(value), None)
    assert (ones - 1).abs().max() < 0.05


def test_equals_transformers_without_pads():
    """Theirs scales the start of the inverse by the largest matrix of the batch unless told otherwise."""
    config = NystromformerConfig(
        hidden_size=16, num_attention_heads=2, num_landmarks=4, segment_means_seq_len=24, conv_kernel_size=5
    )
    torch.manual_seed(0)
    theirs = NystromformerSelfAttention(config).double().eval()
    theirs.init_option = "exact"
    ours = attention(4, convolution=5)
    weights = theirs.state_dict()
    weights["convolution"] = weights.pop("conv.weight")
    ours.load_state_dict(weights)
    hidden_states = torch.randn(3, 24, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(ours(hidden_states)[0], theirs(hidden_states)[0], rtol=0, atol=1e-9)


def test_convolution_starts_without_effect_and_has_a_middle():
    tensors = inputs(20)
    torch.testing.assert_close(attention(4, convolution=3).attend(*tensors, None), attention(4).attend(*tensors, None))
    with pytest.raises(ValueError, match="convolution must be odd, or 0 for none, got 4"):
        attention(4, convolution=4)
