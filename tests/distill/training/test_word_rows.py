"""Only rows of a word embedding train whose words occur in the examples: the same steps, and no other vector moves."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.short_stages import LABELS, TRAINING
from torch import nn

from distill.config.schema import TrainingConfig
from distill.data.batching import collate
from distill.training import stepper as steppers
from distill.training import word_rows
from distill.training.context import StageInputs, TrainingContext
from distill.training.loop import StageTrainer
from distill.training.loss_meter import LossMeter
from distill.training.stepper import Stepper
from distill.training.word_rows import WordRows, trained_rows, words_of
from distill.utils.errors import UserError
from students import StudentConfig, StudentForCausalLM

VOCABULARY = 60
ALL = replace(LABELS, train="all", learning_rate=1e-2)


@pytest.fixture
def examples(make_examples):
    """Texts of few words, which have no padding token."""
    drawn = make_examples(20)
    return replace(drawn, token_ids=5 + drawn.token_ids % 20)


@pytest.fixture
def train(make_bert, examples, make_accelerator):
    """Return a function that takes five steps, and returns model and stepper."""

    def take_steps():
        model, accelerator = make_bert(vocab_size=VOCABULARY).eval(), make_accelerator()
        training = TrainingConfig(weight_decay=0.0)
        stepper = Stepper(TrainingContext(accelerator, training, seed=1), model, ALL, StageInputs(examples))
        meter = LossMeter(accelerator, "labels", ALL.losses)
        for start in range(5):
            stepper.take_step(np.arange(start, start + 8), ALL, meter)
        return model, stepper

    return take_steps


def whole_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steppers, "trained_rows", lambda model, examples: None)


def assert_alike(model: nn.Module, other: nn.Module) -> None:
    for (name, parameter), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        assert parameter.requires_grad
        if not name.endswith("key.bias"):  # it moves no logit, and Adam takes whole steps along rounding errors
            assert torch.allclose(parameter, expected, atol=1e-4), name


def test_steps_are_those_of_the_whole_embedding(train, examples, monkeypatch):
    model, stepper = train()
    assert stepper.rows is not None
    assert len(stepper.rows.rows) == len(set(examples.token_ids)) + 1 < VOCABULARY / 2
    before = model.get_input_embeddings().weight.clone()
    stepper.collect(model)
    stepper.release()
    whole_embedding(monkeypatch)
    expected, _ = train()
    assert_alike(model, expected)
    words = model.get_input_embeddings().weight
    unread = np.setdiff1d(np.arange(VOCABULARY), examples.token_ids)
    assert torch.equal(words[unread], before[unread])
    assert not torch.equal(words, before)


def test_a_collected_model_answers_as_the_one_that_trains(train, examples):
    model, stepper = train()
    inputs, _ = collate(examples, np.arange(6))
    trained = model(**inputs).logits.detach()
    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits, trained, atol=1e-4)  # the weight stays behind
        stepper.collect(model)
        assert torch.equal(model(**inputs).logits, trained)


@pytest.fixture
def run_stage(make_bert, examples, make_accelerator, tmp_path):
    """Return a function that runs a stage; it returns the model and what its scores were computed from."""

    def run(folder: str, stage=ALL, stop_at: float = math.inf, training=TRAINING):
        model, seen = make_bert(vocab_size=VOCABULARY), []
        inputs, labels = collate(examples, np.arange(8))

        def evaluate(each: nn.Module) -> tuple[float, dict[str, float]]:
            with torch.no_grad():
                loss = nn.functional.cross_entropy(each.eval()(**inputs).logits, labels).item()
            seen.append(loss)
            return -loss, {}

        context = TrainingContext(make_accelerator(), replace(training, weight_decay=0.0), seed=7)
        trainer = StageTrainer(context, model, stage, StageInputs(examples), tmp_path / folder, evaluate)
        take_step, count = trainer.train_step, 0

        def train_step(indices: np.ndarray) -> None:
            nonlocal count
            count += 1
            if count > stop_at:
                raise UserError("stopped")
            take_step(indices)

        trainer.train_step = train_step
        try:
            trainer.run()
        finally:
            assert not model.get_input_embeddings()._forward_hooks
            assert all(parameter.requires_grad for parameter in model.parameters())
        return model, seen

    return run


@pytest.mark.parametrize("kept", [{}, {"keep_best_epoch": True}, {"average_epochs": 2}], ids=str)
def test_every_epoch_is_scored_and_kept_as_if_all_words_trained(kept, run_stage, monkeypatch):
    stage = replace(ALL, epochs=3, **kept)
    model, seen = run_stage("rows", stage)
    assert len(set(seen)) == len(seen) == 3
    whole_embedding(monkeypatch)
    expected, expected_seen = run_stage("whole", stage)
    assert seen == pytest.approx(expected_seen, abs=1e-4)
    assert_alike(model, expected)


@pytest.mark.parametrize("stop_at", [4, 6])
def test_a_stopped_stage_goes_on_bit_by_bit(stop_at, run_stage):
    expected, _ = run_stage("undisturbed")
    with pytest.raises(UserError, match="stopped"):
        run_stage("stopped", stop_at=stop_at)
    model, _ = run_stage("stopped")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name


def test_deepspeed_trains_the_whole_embedding(make_bert, examples, make_accelerator, monkeypatch):
    class ReachedError(Exception):
        pass

    def reached(*_: object) -> None:
        raise ReachedError

    monkeypatch.setattr(steppers, "uses_deepspeed", lambda accelerator: True)
    monkeypatch.setattr(steppers, "trained_rows", lambda *_: pytest.fail("rows"))
    monkeypatch.setattr(steppers, "prepare", reached)
    context = TrainingContext(make_accelerator(), TRAINING, seed=1)
    with pytest.raises(ReachedError):
        Stepper(context, make_bert(vocab_size=VOCABULARY), ALL, StageInputs(examples))


def test_padding_gets_no_gradient_where_the_embedding_says_so():
    embedding = nn.Embedding(10, 4, padding_idx=1)
    rows = WordRows(embedding, np.array([1, 3, 7]))
    embedding(torch.tensor([[3, 7, 3, 1, 1]])).sum().backward()
    assert rows.rows.grad.tolist() == [[0.0] * 4, [2.0] * 4, [1.0] * 4]
    assert embedding.weight.grad is None


def test_without_a_padding_row_every_row_trains():
    embedding = nn.Embedding(10, 4, padding_idx=1)
    rows = WordRows(embedding, np.array([0, 3]))
    embedding(torch.tensor([[0, 3, 3]])).sum().backward()
    assert rows.rows.grad.tolist() == [[1.0] * 4, [2.0] * 4]


def test_a_word_without_a_row_is_an_error_not_another_word():
    embedding = nn.Embedding(10, 4)
    WordRows(embedding, np.array([3, 7]))
    with pytest.raises(IndexError):
        embedding(torch.tensor([[3, 5]]))
    with torch.no_grad():
        assert torch.equal(embedding(torch.tensor([5]))[0], embedding.weight[5])


def test_words_are_found_part_by_part_with_the_padding(examples, monkeypatch):
    monkeypatch.setattr(word_rows, "TOKENS_AT_ONCE", 7)
    expected = sorted({*examples.token_ids.tolist(), examples.pad_token_id})
    assert words_of(examples, VOCABULARY).tolist() == expected
    assert examples.pad_token_id not in examples.token_ids


def test_what_is_looked_up_otherwise_trains_whole(make_bert, examples):
    class Scaled(nn.Embedding):
        pass

    model = make_bert(vocab_size=VOCABULARY)
    assert trained_rows(model, replace(examples, token_ids=np.arange(VOCABULARY))) is None
    for embedding in (Scaled(VOCABULARY, 16), nn.Embedding(VOCABULARY, 16, max_norm=1.0)):
        model.set_input_embeddings(embedding)
        assert trained_rows(model, examples) is None
    model.set_input_embeddings(nn.Embedding(VOCABULARY, 16))
    model.get_input_embeddings().weight.requires_grad_(False)
    assert trained_rows(model, examples) is None
    model.get_input_embeddings().weight.requires_grad_(True)
    assert trained_rows(model, examples) is not None


def test_a_language_model_trains_the_whole_matrix_by_which_it_predicts(examples):
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = StudentConfig(attention="linear", causal=True, num_hidden_layers=1, **sizes)
    assert trained_rows(StudentForCausalLM(config), examples) is None
