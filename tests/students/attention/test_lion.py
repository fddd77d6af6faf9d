"""LION: two decayed scans, its limit without decay, symmetry under reversal, and where it starts."""

import pytest
import torch
from helpers.closeness import assert_close
from torch.nn import functional as F

from students import StudentConfig
from students.attention.linear import LinearAttention
from students.attention.lion import LionAttention
from students.attention.ops.decay import carry

HEAD_SIZE = 8


def mechanism(decay="selective", chunk_size=4, **options):
    config = StudentConfig(
        hidden_size=2 * HEAD_SIZE,
        num_attention_heads=2,
        attention="lion",
        attention_options={"decay": decay, "chunk_size": chunk_size},
        **{"max_position_embeddings": 64} | options,
    )
    module = LionAttention(config, layer=0)
    module.initialize_features()
    module = module.double()
    if module.decay_weight is not None:
        torch.nn.init.normal_(module.decay_weight, generator=torch.Generator().manual_seed(1))
    return module


def inputs(length=19):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, length, HEAD_SIZE, generator=random, dtype=torch.float64) for _ in "qkv"]


def scan(query_features, key_features, value, decays, *, backward):
    """One direction token by token, its own token counted half; backward, a gate acts one token later."""
    length = value.shape[2]
    state = torch.zeros(*value.shape[:2], HEAD_SIZE, HEAD_SIZE + 1, dtype=torch.float64)
    outputs = [torch.empty(0)] * length
    value = F.pad(value, (0, 1), value=1.0)
    for token in reversed(range(length)) if backward else range(length):
        gate = token + 1 if backward else token
        if gate < length:
            state = state * decays[:, :, gate, None]
        outer = key_features[:, :, token, :, None] * value[:, :, token, None]
        state = state + outer
        outputs[token] = torch.einsum("bhr,bhrd->bhd", query_features[:, :, token], state - outer / 2)
    return torch.stack(outputs, dim=2)


@pytest.mark.parametrize("decay", ["selective", "fixed"])
@pytest.mark.parametrize("chunk_size", [1, 4, 64])
def test_it_is_the_sum_of_two_scans(decay, chunk_size):
    module = mechanism(decay, chunk_size)
    query, key, value = inputs()
    features = module.features(query, key, None)
    decays = module.decay_bias.expand(2, 2, 19, 1)
    if module.decay_weight is not None:
        decays = decays + key @ module.decay_weight
    both = sum(scan(*features, value, decays.sigmoid(), backward=backward) for backward in (False, True))
    expected = both[..., :-1] / both[..., -1:]
    torch.testing.assert_close(module.attend(query, key, value, None), expected, rtol=0, atol=1e-10)


def test_without_decay_it_is_linear_attention():
    module = mechanism("fixed")
    torch.nn.init.constant_(module.decay_bias, 60.0)
    config = StudentConfig(hidden_size=2 * HEAD_SIZE, num_attention_heads=2, attention="linear")
    linear = LinearAttention(config, layer=0)
    linear.initialize_features()
    tensors = inputs()
    expected = linear.double().attend(*tensors, None)
    torch.testing.assert_close(module.attend(*tensors, None), expected, rtol=0, atol=1e-10)


def test_reversal_reverses_the_output_where_decays_are_fixed():
    tensors = inputs()
    reversed_tensors = [tensor.flip(2) for tensor in tensors]
    module = mechanism("fixed")
    expected = module.attend(*tensors, None)
    torch.testing.assert_close(module.attend(*reversed_tensors, None).flip(2), expected, rtol=0, atol=1e-10)
    # A token's own decay stands between it and the token before it, not the one after.
    selective = mechanism("selective")
    assert (selective.attend(*reversed_tensors, None).flip(2) - selective.attend(*tensors, None)).abs().max() > 1e-3


def test_pads_between_tokens_do_not_fade():
    module = mechanism()
    query, key, value = inputs()
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[:, [0, 5, 6, 7, 12]] = False
    kept = [tensor[:, :, mask[0]] for tensor in (query, key, value)]
    expected = module.attend(*kept, None)
    torch.testing.assert_close(module.attend(query, key, value, mask)[:, :, mask[0]], expected, rtol=0, atol=1e-10)


def test_long_sequences_and_strong_decays_neither_overflow_nor_vanish():
    """Products of decays underflow here: dividing by them, as the textbook form does, would give inf or NaN."""
    module = mechanism("fixed", chunk_size=64).float()
    torch.nn.init.constant_(module.decay_bias, -3.0)
    query, key, value = (tensor.float().requires_grad_() for tensor in inputs(150))
    context = module.attend(query, key, value, None)
    context.square().sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (query, key, value))
    assert_close(context, module.naive_attend(query, key, value, None))


@pytest.mark.parametrize("num_blocks", [1, 2, 5, 8, 16, 17, 300])
def test_carry_is_the_recurrence_over_blocks(num_blocks):
    random = torch.Generator().manual_seed(0)
    states = torch.randn(num_blocks, 3, 2, generator=random)
    log_decay = -torch.rand(num_blocks, 1, 1, generator=random)
    expected, state = [], torch.zeros(3, 2)
    for block in range(num_blocks):
        expected.append(state)
        state = state * log_decay[block].exp() + states[block]
    torch.testing.assert_close(carry(states, log_decay), torch.stack(expected))


def test_heads_start_between_short_and_long_sight():
    module = mechanism("fixed")
    horizons = 1 / (1 - module.decay_bias.sigmoid().flatten())
    torch.testing.assert_close(horizons, torch.tensor([4.0, 64.0], dtype=torch.float64), rtol=1e-4, atol=0)
