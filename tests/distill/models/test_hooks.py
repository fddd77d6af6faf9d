"""Captured layer outputs are BERT's own, and nothing of the hooks is left behind."""

import pytest
import torch
from helpers.closeness import LAST_BITS, assert_close
from torch import nn

from distill.models.hooks import CAPTURABLE, capture, encoder_layers
from students import student_from_teacher

INPUTS = {
    "input_ids": torch.tensor([[2, 7, 9, 11, 3, 0], [2, 8, 3, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]),
    "token_type_ids": torch.zeros(2, 6, dtype=torch.long),
}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.fixture(params=["teacher", "student"])
def model(request, make_bert):
    teacher = make_bert(num_layers=3)
    if request.param == "teacher":
        return teacher
    return student_from_teacher(teacher, layer_map=[0, 1, 2], attention="softmax")[0].eval()


def test_hidden_states_and_inputs_are_those_of_the_model(model):
    with torch.no_grad(), capture(model, {"hidden_states": [2, 0], "layer_input": [0, 1, 2]}) as captured:
        output = model(**INPUTS, output_hidden_states=True)
        expected = model.bert(**INPUTS, output_hidden_states=True).hidden_states
    assert torch.equal(captured["hidden_states"][0], expected[3])  # in the order asked for
    assert torch.equal(captured["hidden_states"][1], expected[1])
    for layer in range(3):
        assert torch.equal(captured["layer_input"][layer], expected[layer])
    assert output.logits.shape == (2, 2)


def test_attention_output_is_taken_before_residual_and_normalisation(model):
    kinds = ("attention_output", "attention_context", "layer_input")
    with torch.no_grad(), capture(model, {kind: [1] for kind in kinds}) as got:
        seen = []
        layer = model.bert.encoder.layer[1]
        handle = layer.intermediate.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        model(**INPUTS)
        handle.remove()
        output, context, hidden = (got[kind][0] for kind in kinds)
        assert torch.equal(layer.attention.output.dense(context), output)
        assert_close(layer.attention.output.LayerNorm(output + hidden), seen[0], LAST_BITS)
        assert not torch.allclose(output, seen[0], atol=1e-2)


def test_query_key_and_value_are_the_projections_of_the_input(model):
    with torch.no_grad(), capture(model, {kind: [0] for kind in ("query", "key", "value", "layer_input")}) as captured:
        model(**INPUTS)
        attention = model.bert.encoder.layer[0].attention.self
        for kind in ("query", "key", "value"):
            expected = getattr(attention, kind)(captured["layer_input"][0])
            assert_close(captured[kind][0], expected, LAST_BITS)


def test_every_kind_can_be_captured_and_carries_a_gradient(model):
    with capture(model, {kind: [1] for kind in CAPTURABLE}) as captured:
        model(**INPUTS)
    for kind in CAPTURABLE:
        assert captured[kind][0].shape == (2, 6, 32)
        assert captured[kind][0].requires_grad


def test_hooks_are_gone_afterwards_even_when_the_model_fails(model):
    before = hooks(model)
    of_the_model = getattr(model.config, "reads_first_token", 0)  # a student is asked for all tokens of its last layer
    with capture(model, {kind: [0, 1] for kind in CAPTURABLE}):
        assert hooks(model) == before + 2 * len(CAPTURABLE) + of_the_model
    assert hooks(model) == before
    with pytest.raises(IndexError), capture(model, {"hidden_states": [0]}):
        model(input_ids=torch.tensor([[10_000]]))
    assert hooks(model) == before


def test_capture_changes_nothing(model):
    with torch.no_grad():
        expected = model(**INPUTS, output_hidden_states=True).logits
        with capture(model, {kind: [0, 2] for kind in CAPTURABLE}):
            assert torch.equal(model(**INPUTS).logits, expected)
        assert model(**INPUTS).hidden_states is None


def test_what_is_not_a_bert_is_named():
    with pytest.raises(ValueError, match="Linear is not a BERT"):
        encoder_layers(nn.Linear(2, 2))
