"""Of a word embedding the rows train that the examples contain: the same steps, and all other vectors stay."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.short_stages import LABELS
from torch import nn

from distill.config.schema import TrainingConfig
from distill.data.batching import collate
from distill.training import stepper as steppers
from distill.training.context import StageInputs, TrainingContext
from distill.training.loss_meter import LossMeter
from distill.training.stepper import Stepper
from distill.training.word_rows import WordRows, trained_rows

UNDECAYED = TrainingConfig(weight_decay=0.0)
VOCABULARY = 60


@pytest.fixture
def train(make_bert, make_examples, make_accelerator):
    """Return a function that takes five steps on texts of few words, and returns model and examples."""
    examples = make_examples(20)
    examples = replace(examples, token_ids=examples.token_ids % 20)

    def take_steps(dropout: bool = False):
        model = make_bert(vocab_size=VOCABULARY).train(dropout)
        stage, accelerator = replace(LABELS, train="all", learning_rate=1e-2), make_accelerator()
        stepper = Stepper(TrainingContext(accelerator, UNDECAYED, seed=1), model, stage, StageInputs(examples))
        meter = LossMeter(accelerator, "labels", stage.losses)
        for start in range(5):
            stepper.take_step(np.arange(start, start + 8), stage, meter)
        return model, stepper, examples

    return take_steps


def test_steps_are_those_of_the_whole_embedding(train, monkeypatch):
    model, stepper, examples = train()
    assert stepper.rows is not None
    assert len(stepper.rows.rows) == len(set(examples.token_ids)) < VOCABULARY / 2
    before = model.get_input_embeddings().weight.clone()
    stepper.collect(model)
    stepper.release()
    monkeypatch.setattr(steppers, "trained_rows", lambda model, tokens: None)
    expected, _, _ = train()
    for (name, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert parameter.requires_grad
        if not name.endswith("key.bias"):  # it moves no logit, and Adam takes whole steps along rounding errors
            assert torch.allclose(parameter, other, atol=1e-4), name
    words = model.get_input_embeddings().weight
    unread = np.setdiff1d(np.arange(VOCABULARY), examples.token_ids)
    assert torch.equal(words[unread], before[unread])
    assert not torch.equal(words, before)


def test_a_collected_model_answers_as_the_one_that_trains(train):
    model, stepper, examples = train()
    inputs, _ = collate(examples, np.arange(6))
    trained = model(**inputs).logits.detach()
    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits, trained, atol=1e-4)  # the weight stays behind
        stepper.collect(model)
        assert torch.equal(model(**inputs).logits, trained)


def test_padding_gets_no_gradient():
    embedding = nn.Embedding(10, 4, padding_idx=1)
    rows = WordRows(embedding, np.array([1, 3, 7]))
    embedding(torch.tensor([[3, 7, 3, 1, 1]])).sum().backward()
    assert rows.rows.grad.tolist() == [[0.0] * 4, [2.0] * 4, [1.0] * 4]
    assert embedding.weight.grad is None


def test_what_is_looked_up_otherwise_trains_whole(make_bert):
    class Scaled(nn.Embedding):
        pass

    model = make_bert(vocab_size=VOCABULARY)
    few, all_words = np.array([2, 3, 5]), np.arange(VOCABULARY)
    assert trained_rows(model, all_words) is None
    model.set_input_embeddings(Scaled(VOCABULARY, 16))
    assert trained_rows(model, few) is None
    model.set_input_embeddings(nn.Embedding(VOCABULARY, 16))
    model.get_input_embeddings().weight.requires_grad_(False)
    assert trained_rows(model, few) is None
    model.get_input_embeddings().weight.requires_grad_(True)
    rows = trained_rows(model, few)
    assert rows is not None
    assert rows.words.tolist() == [2, 3, 5]
