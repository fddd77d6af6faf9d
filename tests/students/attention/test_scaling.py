"""Scaling Transformers: what multiplicative dense layers can represent, and how near to the teacher they start."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.tiny_bert import tiny_bert
from torch import nn

from students import StudentConfig, student_from_teacher
from students.attention.scaling import MultiplicativeDense, ScalingAttention

SIZES = {"vocab_size": 40, "hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 1}


def fitted(dense, num_modules):
    layer = MultiplicativeDense(dense.in_features, num_modules)
    layer.initialize(torch.Generator().manual_seed(0))
    layer.to(dense.weight.dtype).fit(dense)
    return layer


def dense_layer(weight=None):
    torch.manual_seed(0)
    layer = nn.Linear(24, 24).double()
    if weight is not None:
        layer.weight.data.copy_(weight)
    return layer


def states():
    return torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_permutation_is_represented_exactly():
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    dense = dense_layer(torch.eye(24)[order])
    torch.testing.assert_close(fitted(dense, 4)(states()), dense(states()), rtol=0, atol=1e-10)


def test_the_fit_is_the_best_one_of_its_form():
    """No other D and E of the same shapes is nearer; gradient descent from it goes nowhere."""
    dense = dense_layer()
    layer = fitted(dense, 4)
    weight = (layer.modules_weight.unsqueeze(-1) * layer.channels_weight.unsqueeze(1)).flatten(1).mT
    error = (weight - dense.weight).square().sum()
    gradients = torch.autograd.grad(error, [layer.modules_weight, layer.channels_weight])
    assert max(gradient.abs().max() for gradient in gradients) < 1e-10
    assert error < 0.9 * dense.weight.square().sum()


def test_c13_with_one_module_the_student_is_the_teacher():
    teacher = tiny_bert(**SIZES, initializer_range=0.3)
    batch = {
        "input_ids": torch.randint(1, 40, (2, 9), generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.arange(9) < torch.tensor([[9], [4]]),
    }
    logits = {}
    for modules in (1, 4):
        student, report = student_from_teacher(
            teacher, layer_map=[0], attention="scaling", attention_options={"modules": modules}
        )
        assert report.new == ()
        logits[modules] = student.eval()(**batch).logits
    expected = teacher(**batch).logits
    assert_close(logits[1], expected)
    assert (logits[4] - expected).abs().max() > 1e-3


def test_it_has_a_fraction_of_the_parameters():
    config = StudentConfig(attention="scaling")  # BERT base
    module = ScalingAttention(config, layer=0)
    modules, size = 16, 48
    expected = 3 * (768 * (modules + size) + 9 * size**2 + 768)
    assert sum(parameter.numel() for parameter in module.parameters()) == expected
    assert expected < 0.15 * 3 * 768 * 769


def test_the_convolution_sees_the_next_token_and_the_next_module():
    layer = MultiplicativeDense(24, 4)
    layer.initialize(torch.Generator().manual_seed(0))
    hidden_states = states().float()
    changed = hidden_states.clone()
    changed[:, 3] += 1
    assert (layer(changed) - layer(hidden_states))[0].abs().amax(-1).nonzero().flatten().tolist() == [3]
    with torch.no_grad():
        layer.convolution.normal_()
        layer.modules_weight[:, 1:] = 0  # module 0 alone has anything to say
    assert (layer(changed) - layer(hidden_states))[0].abs().amax(-1).nonzero().flatten().tolist() == [2, 3, 4]
    assert layer(hidden_states).unflatten(-1, (4, 6)).abs().amax((0, 1, 3)).gt(0).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_modules_must_divide_the_hidden_size():
    with pytest.raises(ValueError, match="modules 5 must divide hidden_size 24"):
        ScalingAttention(StudentConfig(**SIZES, attention="scaling", attention_options={"modules": 5}), layer=0)
