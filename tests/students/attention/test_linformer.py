"""Linformer: its limits, the start of its slots, and what it says of too long a text."""

import pytest
import torch
from torch.nn import functional as F

from students import StudentConfig
from students.attention.linformer import LinformerAttention


def linformer(num_slots, num_positions):
    config = StudentConfig(
        hidden_size=16,
        num_attention_heads=2,
        attention="linformer",
        num_features=num_slots,
        max_position_embeddings=num_positions,
    )
    module = LinformerAttention(config, layer=0)
    module.initialize_features()
    return module.double()


def inputs(length):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, length, 8, generator=random, dtype=torch.float64) for _ in range(3)]


def test_c4_identity_is_softmax_attention_with_pads_too():
    module, tensors = linformer(12, 12), inputs(12)
    assert torch.equal(module.slots, torch.eye(12, dtype=torch.float64))
    expected = F.scaled_dot_product_attention(*tensors)
    torch.testing.assert_close(module.attend(*tensors, None), expected, rtol=0, atol=1e-10)
    mask = torch.arange(12) < torch.tensor([[12], [5]])
    expected = F.scaled_dot_product_attention(*tensors, mask[:, None, None])
    real = mask[:, None].expand(-1, 2, -1)
    torch.testing.assert_close(module.attend(*tensors, mask)[real], expected[real], rtol=0, atol=1e-10)


def test_c4_a_text_of_fewer_tokens_than_slots_starts_with_softmax_attention():
    tensors = inputs(7)
    expected = F.scaled_dot_product_attention(*tensors)
    torch.testing.assert_close(linformer(8, 64).attend(*tensors, None), expected, rtol=0, atol=1e-10)


def test_a_text_that_fills_all_positions_is_the_papers_linformer():
    module, (query, key, value) = linformer(4, 12), inputs(12)
    with torch.no_grad():
        module.slots.normal_(generator=torch.Generator().manual_seed(1))
    weights = (query @ (module.slots @ key).mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(module.attend(query, key, value, None), weights @ (module.slots @ value))


@pytest.mark.parametrize("length", [12, 40, 64])
def test_slots_start_as_means_however_many_tokens_they_hold(length):
    """Constant keys and values come out unchanged, and a slot of two tokens counts as two."""
    module = linformer(16, 64)
    query, key, value = inputs(length)
    constant = value[:, :, :1].expand_as(value)
    torch.testing.assert_close(module.attend(query, key, constant, None), constant, rtol=0, atol=1e-10)
    same_key = key[:, :, :1].expand_as(key)
    mean = value.mean(2, keepdim=True).expand_as(value)
    torch.testing.assert_close(module.attend(query, same_key, value, None), mean, rtol=0, atol=1e-10)


def test_more_tokens_than_positions_are_refused_and_room_can_be_made():
    module, tensors = linformer(4, 12), inputs(13)
    with pytest.raises(ValueError, match="13 tokens are more than the 12"):
        module.attend(*tensors, None)
    module.extend_positions(13)
    assert module.attend(*tensors, None).isfinite().all()
