"""Contract C3, C4, C9 and C13: the mechanism is its naive form, has its gradients, and tends to what it claims."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.contract import (
    configuration,
    generator,
    inputs,
    mask_of,
    mechanism,
    over_rows,
    over_variants,
    run,
    run_naive,
)
from helpers.tiny_bert import tiny_bert
from torch.nn import functional as F

from students import ATTENTIONS, student_from_teacher


@over_variants
@pytest.mark.parametrize("length", [1, 7, 40])  # below and above the number of features
def test_c3_equals_the_naive_form_with_gradients(name, features, choices, length):
    module = mechanism(name, features, choices)
    mask = mask_of([length, max(1, length // 2)], length)
    results = []
    for function in (run, run_naive):
        leaves = [tensor.requires_grad_() for tensor in inputs(module, length=length)]
        context = function(module, leaves, mask)
        real = over_rows(mask, context)
        weight = torch.randn(context.shape, generator=generator(3), dtype=torch.float64) * real
        parameters = module.feature_parameters()
        gradients = torch.autograd.grad((context * weight).sum(), [*leaves, *parameters], allow_unused=True)
        results.append([context[real], *gradients])
    for fast, naive in zip(*results, strict=True):
        if fast is None or naive is None:  # a parameter that so few tokens do not reach
            assert fast is naive or (fast if naive is None else naive).abs().max() == 0
        else:
            torch.testing.assert_close(fast, naive, rtol=1e-9, atol=1e-9)


def test_c4_softmax_is_its_own_limit():
    module = mechanism("softmax")
    tensors = inputs(module)
    expected = F.scaled_dot_product_attention(*tensors)
    torch.testing.assert_close(run(module, tensors, None), expected, rtol=0, atol=1e-10)


def test_c4_performer_tends_to_softmax_with_more_features():
    query, key, value = (0.5 * tensor for tensor in inputs(mechanism("performer"), length=30))
    expected = F.scaled_dot_product_attention(query, key, value)
    errors = []
    for num_features in (16, 1024):
        module = ATTENTIONS["performer"](configuration("performer", "redrawn", num_features=num_features), layer=0)
        module.double().initialize_features()
        squares = []
        for redraw_index in range(8):
            module.redraw_features(redraw_index)
            context = module.attend(query, key, value, None).detach()
            squares.append(float((context - expected).square().sum() / expected.square().sum()))
        errors.append(sum(squares) ** 0.5 / 8**0.5)
    assert errors[1] < 0.25 * errors[0]  # the error falls like 1/√m, by 8
    assert errors[1] < 0.1


@over_variants
@pytest.mark.parametrize("masked", [False, True])
def test_c9_gradcheck(name, features, choices, masked):
    module = mechanism(name, features, choices, hidden_size=8, num_features=6)
    leaves = [tensor.requires_grad_() for tensor in inputs(module, batch=1, length=7)]
    mask = mask_of([5], 7) if masked else None
    parameters = module.feature_parameters()

    def real_context(*tensors):
        return run(module, tensors[: len(leaves)], mask)[..., : 5 if masked else 7, :]

    assert torch.autograd.gradcheck(real_context, (*leaves, *parameters))


def test_c13_softmax_student_of_full_depth_is_the_teacher():
    teacher = tiny_bert(num_hidden_layers=4, hidden_size=32, num_attention_heads=4, intermediate_size=64, num_labels=3)
    student, _ = student_from_teacher(teacher, layer_map=[0, 1, 2, 3], attention="softmax")
    input_ids = torch.randint(1, 50, (3, 12), generator=generator(6))
    batch = {"input_ids": input_ids, "attention_mask": mask_of([12, 5, 1], 12).long(), "token_type_ids": input_ids % 2}
    with torch.no_grad():
        assert_close(student.eval()(**batch).logits, teacher(**batch).logits)
