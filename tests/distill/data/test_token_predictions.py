"""A language model computes the predictions that somebody reads, and they are what it would have computed of all."""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertForMaskedLM,
    ElectraForMaskedLM,
    RobertaForMaskedLM,
)

from distill.config.schema import StageConfig, TrainingConfig
from distill.data.batching import collate
from distill.data.labels import HIDDEN
from distill.data.text_tokenizers import text_tokenizer
from distill.data.text_windows import read_windows
from distill.data.token_predictions import PLACES, places_to_predict, predicting
from distill.evaluation.text_metrics import token_losses
from distill.models.hooks import read_teacher
from distill.objectives.capture_plan import StageModel, plan_stage
from distill.objectives.stage_losses import compute_losses
from distill.training.context import StageInputs, TrainingContext
from distill.training.loss_meter import LossMeter
from distill.training.stepper import Stepper
from students import StudentConfig, StudentForMaskedLM
from teachers.outputs import OnlineTeacherOutputs

TEXT = "a b c d e f g h i j k l m n\n" * 20

SIZE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


@pytest.fixture
def models():
    torch.manual_seed(0)
    teacher = BertForMaskedLM(BertConfig(**SIZE)).eval()
    student = StudentForMaskedLM(StudentConfig(**SIZE, attention="softmax")).eval()
    return teacher, student


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (3, 10), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    labels = torch.full_like(ids, HIDDEN)
    labels[0, [1, 4, 8]] = ids[0, [1, 4, 8]]
    labels[1, 3] = ids[1, 3]
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}, labels


def test_places_are_those_with_a_label_in_their_order(batch):
    _, labels = batch
    places = places_to_predict(labels, reads_logits=True)
    assert places.shape == (3, 3)
    assert places[0].tolist() == [1, 4, 8]
    assert places[1, 0] == 3
    kept = labels.gather(1, places)
    assert (kept != HIDDEN).sum(1).tolist() == [3, 1, 0]


def test_where_every_token_is_predicted_nothing_is_left_out():
    assert places_to_predict(torch.ones(2, 5, dtype=torch.long), reads_logits=True) is None


def test_predictions_nobody_reads_are_not_computed(models, batch):
    inputs, labels = batch
    places = places_to_predict(labels, reads_logits=False)
    for model in models:
        with predicting(model, places):
            assert model(**inputs).logits.shape == (3, 0, 50)
        assert model(**inputs).logits.shape == (3, 10, 50)


@pytest.mark.parametrize("family", [BertForMaskedLM, DistilBertForMaskedLM, RobertaForMaskedLM, ElectraForMaskedLM])
def test_the_head_of_any_family_computes_what_it_would_have_computed_of_all(family, batch):
    inputs, labels = batch
    sizes = SIZE | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "embedding_size": 16}
    model = family(family.config_class(**sizes | {"pad_token_id": 0})).eval()
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda module, given, made: seen.append(made.shape[1]))
    places = places_to_predict(labels, reads_logits=True)
    read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    whole = model(**read).logits
    with predicting(model, places):
        few = model(**read).logits
    torch.testing.assert_close(few, whole.gather(1, places[..., None].expand(-1, -1, whole.shape[-1])))
    assert seen == [10, 3]
    assert model(**read).logits.shape == whole.shape


@pytest.mark.parametrize("losses", [{"logits": 1.0}, {"labels": 1.0}, {"logits": 0.5, "labels": 0.5}])
def test_losses_and_gradients_are_those_of_all_predictions(models, batch, losses):
    inputs, labels = batch
    found = [losses_and_gradient(models, inputs, labels, losses, few) for few in (False, True)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def losses_and_gradient(models, inputs, labels, losses, few):
    teacher, student = models
    stage = StageConfig(name="logits", losses=losses, epochs=1, learning_rate=1e-3)
    plan = plan_stage(stage, [0, 1], 2)
    if few:
        places = places_to_predict(labels, reads_logits=True)
        inputs, labels = inputs | {PLACES: places}, labels.gather(1, places)
    with torch.no_grad():
        expected = read_teacher(teacher, plan.teacher, inputs)
    got = StageModel(student, plan)(inputs)
    assert got["logits"].shape[1] == (3 if few else 10)
    values = compute_losses(stage, got, expected, inputs | {"labels": labels}, 8)
    student.zero_grad()
    sum(value.sum() for value in values.values()).backward()
    return [*values.values(), student.bert.embeddings.word_embeddings.weight.grad.clone()]


@pytest.fixture(scope="module")
def windows():
    tokenizer = text_tokenizer("wordpiece", [TEXT], 60)
    return read_windows([TEXT], tokenizer, 16, "masked", name="train", whole=True), len(tokenizer)


@pytest.mark.parametrize(("losses", "at_most"), [({"hidden_states": 1.0}, 0), ({"labels": 1.0}, 3)])
def test_a_stage_predicts_no_more_than_its_losses_read(windows, make_accelerator, losses, at_most):
    examples, size = windows
    model = StudentForMaskedLM(StudentConfig(**SIZE | {"vocab_size": size}, attention="softmax"))
    teacher = copy.deepcopy(model).eval()
    stage = StageConfig(name="stage", losses=losses, epochs=1, learning_rate=1e-3)
    plan = plan_stage(stage, [0, 1], 2)
    inputs = StageInputs(examples, plan, OnlineTeacherOutputs(teacher, plan))
    accelerator = make_accelerator()
    context = TrainingContext(accelerator, TrainingConfig(), seed=1)
    predicted = []
    for each in (model, teacher):
        each.cls.register_forward_hook(lambda module, inputs, output: predicted.append(output.shape[1]))
    Stepper(context, model, stage, inputs).take_step(np.arange(4), stage, LossMeter(accelerator, "stage", losses))
    assert len(predicted) == 2
    assert max(predicted) <= at_most


def test_the_loss_of_a_masked_text_is_that_of_all_its_predictions(windows):
    examples, size = windows
    model = StudentForMaskedLM(StudentConfig(**SIZE | {"vocab_size": size}, attention="softmax")).eval()
    found = token_losses(model, examples, device="cpu").sums
    inputs, labels = collate(examples, np.arange(len(examples)))
    with torch.no_grad():
        logits = model(**inputs).logits
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=HIDDEN, reduction="none"
    )
    np.testing.assert_allclose(found, each.view_as(labels).sum(1).numpy(), rtol=1e-5)
