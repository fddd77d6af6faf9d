"""Compressive Transformer: without compression it is Transformer-XL, and its own loss trains the compression alone."""

import pytest
import torch

from students import StudentConfig
from students.attention.compressive import CompressiveAttention
from students.attention.transformer_xl import TransformerXLAttention

HIDDEN_SIZE = 24


def build(kind, layer=0, **options):
    torch.manual_seed(0)
    name = {CompressiveAttention: "compressive", TransformerXLAttention: "transformer_xl"}[kind]
    config = StudentConfig(
        attention=name, hidden_size=HIDDEN_SIZE, num_attention_heads=3, attention_options={"segment": 4} | options
    )
    module = kind(config, layer)
    module.initialize_features()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in (module.content_bias, module.position_bias, module.relative.weight):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.double()


def compressive(layer=0, memory=4, compressed=4, rate=2):
    return build(CompressiveAttention, layer, memory=memory, compressed=compressed, rate=rate)


def states(length=30):
    return torch.randn(2, length, HIDDEN_SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("memory", "compressed", "rate"), [(4, 8, 1), (0, 4, 1), (8, 0, 2)])
def test_uncompressed_slots_are_more_memory(layer, memory, compressed, rate):
    module = compressive(layer, memory, compressed, rate)
    longer = build(TransformerXLAttention, layer, memory=memory + compressed)
    longer.load_state_dict(module.state_dict(), strict=False)
    mask = torch.arange(30) < torch.tensor([30, 21])[:, None]
    result, expected = module(states(), mask)[0], longer(states(), mask)[0]
    torch.testing.assert_close(result[mask], expected[mask], rtol=0, atol=1e-12)


def test_the_mean_of_equal_tokens_is_the_token_however_few_are_real():
    module = compressive(rate=4, compressed=2)
    token = states()[0, 0]
    mask = torch.arange(12) < 9  # of the last group of four, one is real
    hidden_states = token.expand(1, 12, -1).masked_fill(~mask[None, :, None], 0)
    slots, real = module.compression.compress(hidden_states, mask[None])
    assert real.tolist() == [[True, True, True]]
    torch.testing.assert_close(slots, token.expand(1, 3, -1))
    _, real = module.compression.compress(hidden_states, (torch.arange(12) < 8)[None])
    assert real.tolist() == [[True, True, False]]


def test_slots_carry_what_lies_beyond_the_memory():
    module, hidden_states = compressive(), states()
    changed = hidden_states.clone()
    changed[:, 5] += 1  # segment 1, which segments 3 and 4 see compressed, and segment 2 as memory
    moved = (module(changed)[0] - module(hidden_states)[0]).abs().amax((0, 2)) > 0
    assert moved.tolist() == [4 <= token < 20 for token in range(30)]
    assert module.receptive_field(30)[:, 5].tolist() == moved.tolist()


def test_reconstruction_loss_trains_the_compression_alone():
    module, hidden_states = compressive(), states().requires_grad_()
    mask = torch.arange(30) < torch.tensor([30, 25])[:, None]
    loss = module.compression_loss(hidden_states, mask)
    assert loss.shape == (2,)
    assert (loss > 0).all()
    loss.sum().backward()
    assert hidden_states.grad is None
    touched = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert touched == {"compression.weight"}
    assert module.compression.weight.grad.abs().max() > 0


def test_reconstruction_loss_falls_and_is_zero_without_compression():
    module, hidden_states = compressive(), states()
    optimizer = torch.optim.Adam([module.compression.weight], lr=0.01)
    losses = []
    for _ in range(60):
        loss = module.compression_loss(hidden_states, None).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert compressive(rate=1).compression_loss(hidden_states, None).max() < 1e-20
    assert module.compression_loss(hidden_states[:, :8], None).tolist() == [0, 0]  # nothing beyond the memory


def test_reconstruction_loss_ignores_pads_on_either_side():
    module, hidden_states = compressive(), states(24)
    expected = module.compression_loss(hidden_states, None)
    garbage = torch.full((2, 5, HIDDEN_SIZE), torch.nan, dtype=torch.float64)
    ones, zeros = torch.ones(2, 24, dtype=torch.bool), torch.zeros(2, 5, dtype=torch.bool)
    right = module.compression_loss(torch.cat([hidden_states, garbage], 1), torch.cat([ones, zeros], 1))
    left = module.compression_loss(torch.cat([garbage, hidden_states], 1), torch.cat([zeros, ones], 1))
    torch.testing.assert_close(right, expected)
    torch.testing.assert_close(left, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 3}, "must fit the segment of 4"),
        ({"compressed": 3}, "must fit the segment of 4"),
        ({"rate": 0}, "rate must be a whole number from 1 to 64, got 0"),
    ],
)
def test_sizes_must_fit(options, message):
    with pytest.raises(ValueError, match=message):
        compressive(**options)


def test_odd_layers_look_to_the_right():
    module, mask = compressive(layer=1, compressed=8), torch.arange(30) < torch.tensor([30, 17])[:, None]
    result, naive = module.mix(states(), mask), module.naive_mix(states(), mask)
    torch.testing.assert_close(result[mask], naive[mask], rtol=0, atol=1e-12)
    expected = compressive(layer=0, compressed=8).receptive_field(32).flip(0, 1)
    assert torch.equal(module.receptive_field(32), expected)
