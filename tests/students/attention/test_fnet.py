"""FNet: transformers' own Fourier layer, linearity, and a student without attention weights."""

import pytest
import torch
from helpers.tiny_bert import tiny_bert
from transformers import FNetConfig
from transformers.models.fnet.modeling_fnet import FNetBasicFourierTransform

from students import StudentConfig, student_from_teacher
from students.attention.fnet import FNetMixing


def fnet(num_positions=12, scale=1.0):
    config = StudentConfig(
        hidden_size=16, num_attention_heads=2, attention="fnet", max_position_embeddings=num_positions
    )
    module = FNetMixing(config, layer=0).double()
    module.scale.data.fill_(scale)
    return module


def states(length=12):
    return torch.randn(2, length, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_equals_transformers_without_pads():
    theirs = FNetBasicFourierTransform(FNetConfig(hidden_size=16))
    torch.testing.assert_close(fnet()(states())[0], theirs(states())[0], rtol=0, atol=1e-10)


def test_is_linear():
    module, first, second = fnet(), states(), states().flip(0)
    expected = 2 * module(first)[0] + 3 * module(second)[0]
    torch.testing.assert_close(module(2 * first + 3 * second)[0], expected)


def test_twice_keeps_the_even_part():
    """cos and sin parts: Re F of Re F x is PD (x + x reversed) / 2, which no other scaling or axis gives."""
    hidden_states = states()
    reversed_states = hidden_states.roll(-1, (1,)).flip(1).roll(-1, (2,)).flip(2)
    twice = fnet()(fnet()(hidden_states)[0])[0]
    torch.testing.assert_close(twice, 12 * 16 * (hidden_states + reversed_states) / 2)


def test_starts_as_large_as_its_input():
    config = StudentConfig(hidden_size=16, num_attention_heads=2, attention="fnet", max_position_embeddings=64)
    module = FNetMixing(config, layer=0)
    module.initialize_features()
    mixed = module(states(64).float())[0]
    half = states(64).square().mean().item() / 2  # of the energy is in the real part
    assert mixed.square().mean().item() == pytest.approx(half, rel=0.1)


def test_a_student_has_no_attention_weights():
    teacher = tiny_bert(num_hidden_layers=1)
    student, report = student_from_teacher(teacher, layer_map=[0], attention="fnet")
    own = [name for name in student.state_dict() if ".attention." in name and "LayerNorm" not in name]
    assert own == ["bert.encoder.layer.0.attention.self.scale"] == list(report.new)
    assert student.config.attention_flops(128) == 0


def test_more_tokens_than_points_are_refused_and_room_can_be_made():
    module = fnet()
    with pytest.raises(ValueError, match="13 tokens are more than the 12 points"):
        module(states(13))
    module.extend_positions(13)
    assert module(states(13))[0].isfinite().all()
