"""Fine-tuning through a model whose last layer computes the first token alone: the same gradients for the teacher."""

import pytest
import torch
from helpers.families import batch_for, tiny_classifier
from torch import nn

from students import StudentForSequenceClassification
from students.families import FAMILIES
from teachers.first_token import reading_first_token


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_of_every_family_are_the_models_own(kind):
    model = tiny_classifier(kind).eval()
    twin = reading_first_token(model).eval()
    batch = batch_for(model)
    weights = torch.tensor([1.0, -2.0])[: model.config.num_labels]

    def gradients(of: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        logits = of(**batch).logits
        (logits * weights).sum().backward()
        return logits.detach(), {name: each.grad.clone() for name, each in model.named_parameters()}

    logits, expected = gradients(model)
    found_logits, found = gradients(twin)
    assert torch.allclose(found_logits, logits, atol=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-3), name
    if kind == "distilbert":  # a student has a table of token types beside its parameters
        assert twin is model
    else:
        assert isinstance(twin, StudentForSequenceClassification)
        assert {id(each) for each in twin.parameters()} == {id(each) for each in model.parameters()}


def test_a_step_of_one_is_a_step_of_the_other():
    model = tiny_classifier("bert")
    twin = reading_first_token(model)
    with torch.no_grad():
        twin.classifier.weight.add_(1.0)
        twin.bert.encoder.layer[0].intermediate.dense.bias.add_(1.0)
    assert torch.equal(model.classifier.weight, twin.classifier.weight)
    assert torch.equal(
        model.bert.encoder.layer[0].intermediate.dense.bias, twin.bert.encoder.layer[0].intermediate.dense.bias
    )


def test_texts_in_windows_are_left_to_the_model():
    model = tiny_classifier("bert")
    positions = model.config.max_position_embeddings
    assert reading_first_token(model, positions) is not model
    assert reading_first_token(model, positions + 1) is model


def test_another_model_trains_as_it_is():
    model = nn.Linear(2, 2)
    model.config = type("Config", (), {"model_type": "xlnet"})()
    assert reading_first_token(model) is model
