"""Fine-tuning a BERT through a model whose last layer computes the first token alone: the same steps."""

import copy

import numpy as np
import pytest
import torch
from helpers.families import batch_for, tiny_classifier
from torch import nn
from transformers import AutoTokenizer

from distill.config.schema import Config, TeacherConfig, TrainingConfig
from distill.data.batching import TokenizedExamples
from distill.tasks import get_task
from distill.training.context import TrainingContext
from distill.training.run_folder import RunFolder
from students import StudentForSequenceClassification
from students.families import FAMILIES
from teachers import finetuning
from teachers.first_token import reading_first_token
from teachers.loading import Teacher


@pytest.fixture
def model():
    return tiny_classifier("bert")


def test_logits_and_gradients_are_the_models_own(model):
    twin = reading_first_token(model.eval()).eval()
    assert isinstance(twin, StudentForSequenceClassification)
    batch = batch_for(model)

    def gradients(of: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        logits = of(**batch).logits
        (logits * torch.tensor([1.0, -2.0])).sum().backward()
        return logits.detach(), {name: each.grad.clone() for name, each in model.named_parameters()}

    logits, expected = gradients(model)
    found_logits, found = gradients(twin)
    assert torch.allclose(found_logits, logits, atol=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-3), name
    last = model.bert.encoder.layer[-1].intermediate.dense
    seen = []
    last.register_forward_hook(lambda *given: seen.append(given[1][0].shape[1]))
    twin.bert.encoder.layer[-1].intermediate.dense.register_forward_hook(
        lambda *given: seen.append(given[1][0].shape[1])
    )
    model(**batch)
    twin(**batch)
    assert seen == [batch["input_ids"].shape[1], 1]


def test_parameters_are_the_same(model):
    before = copy.deepcopy(model.state_dict())
    twin = reading_first_token(model)
    assert {name: id(each) for name, each in twin.named_parameters()} == {
        name: id(each) for name, each in model.named_parameters()
    }
    twin.load_state_dict(
        {name: tensor + 1 for name, tensor in twin.state_dict().items() if tensor.is_floating_point()}, strict=False
    )
    assert all(torch.equal(tensor, before[name] + 1) for name, tensor in model.state_dict().items())


def test_units_are_dropped_in_the_same_places(model, monkeypatch):
    dropped = []
    forward = nn.Dropout.forward
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, states: (dropped.append(self.p), forward(self, states))[1])
    counts = []
    for each in (model.train(), reading_first_token(model).train()):
        dropped.clear()
        each(**batch_for(model))
        counts.append(sorted(dropped))
    assert counts[0] == counts[1]
    assert counts[0]


def test_texts_in_windows_are_left_to_the_model(model):
    positions = model.config.max_position_embeddings
    assert reading_first_token(model, positions) is not model
    assert reading_first_token(model, positions + 1) is model


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "bert"])
def test_another_family_trains_as_it_is(kind):
    other = tiny_classifier(kind)
    assert reading_first_token(other) is other


def test_a_teacher_is_fine_tuned_that_way(model, make_examples, monkeypatch, tmp_path):
    class SeenError(Exception):
        pass

    def look(run: object, trained: nn.Module, *more: object) -> None:
        assert isinstance(trained, StudentForSequenceClassification)
        assert trained.classifier.weight is model.classifier.weight
        raise SeenError

    monkeypatch.setattr(finetuning, "StageTrainer", look)
    monkeypatch.setattr(finetuning, "held_out_scorer", lambda *_: None)
    settings = TeacherConfig(epochs=1, batch_size=4, learning_rate=0.1, layer_decay=1.0)
    config, teacher = Config("sst2", teacher=settings), Teacher(model, AutoTokenizer, is_trained=False)
    folder, task, examples = RunFolder(tmp_path), get_task("sst2"), make_examples()
    run = TrainingContext(None, TrainingConfig(), 0)
    with pytest.raises(SeenError):
        finetuning.prepare_teacher(run, config, task, teacher, examples, examples, folder, pytest.fail)
    tokens = np.full(model.config.max_position_embeddings + 1, 7, np.int32)
    long = TokenizedExamples(tokens, np.zeros(len(tokens), np.uint8), np.array([0, len(tokens)]), np.array([0]), [0])
    monkeypatch.setattr(finetuning, "StageTrainer", lambda run, trained, *more: pytest.fail(type(trained).__name__))
    for read in ((long, examples), (examples, long)):  # one of either in windows, and the model trains itself
        with pytest.raises(pytest.fail.Exception, match="BertForSequenceClassification"):
            finetuning.prepare_teacher(run, config, task, teacher, *read, folder, pytest.fail)
