"""Loss, perplexity and bits per character of a text, and what a student keeps of them."""

import math

import numpy as np
import pytest
import torch

from distill.data.labels import HIDDEN
from distill.data.text_tokenizers import text_tokenizer
from distill.data.text_windows import read_windows
from distill.evaluation.text_metrics import TokenLosses, compare_losses, text_metrics, token_losses, unigram_loss
from students import ATTENTIONS, StudentConfig, StudentForCausalLM

TEXT = "abab cdcd é abba\n" * 40


@pytest.fixture(scope="module")
def windows():
    return read_windows([TEXT], text_tokenizer("byte", [], 0), 16, "causal", name="train", whole=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 261, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    return StudentForCausalLM(StudentConfig(attention="softmax", causal=True, num_hidden_layers=1, **sizes)).eval()


def test_the_loss_is_that_of_every_token_whatever_the_batches(windows, model, monkeypatch):
    losses = token_losses(model, windows, device="cpu")
    expected = []
    with torch.no_grad():
        for row in range(len(windows)):
            start, end = windows.offsets[row : row + 2]
            ids = torch.from_numpy(windows.token_ids[start:end].astype(np.int64))[None]
            labels = torch.from_numpy(windows.labels[row][: end - start].astype(np.int64))
            expected.append(torch.nn.functional.cross_entropy(model(ids).logits[0], labels, reduction="sum").item())
    np.testing.assert_allclose(losses.sums, expected, rtol=1e-5)
    assert losses.counts.sum() == len(TEXT.encode()) - 1
    monkeypatch.setattr("distill.evaluation.text_metrics.LOGITS_AT_ONCE", 1)
    np.testing.assert_allclose(token_losses(model, windows, device="cpu").sums, expected, rtol=1e-5)


@pytest.mark.parametrize("attention", ["transformer_xl", "compressive"])
def test_a_memory_is_carried_from_window_to_window_where_the_paper_does(windows, attention, monkeypatch):
    torch.manual_seed(0)
    small = ATTENTIONS[attention].small_options
    sizes = {"vocab_size": 261, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    options = {"attention": attention, "attention_options": dict(small), "causal": True, "initializer_range": 0.3}
    model = StudentForCausalLM(StudentConfig(num_hidden_layers=2, max_position_embeddings=2048, **sizes, **options))
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight.zero_()
        ids = torch.from_numpy(windows.token_ids.astype(np.int64))[None]
        labels = torch.from_numpy(windows.labels[windows.labels != HIDDEN].astype(np.int64))
        whole = torch.nn.functional.cross_entropy(model.eval()(ids).logits[0], labels).item()
    monkeypatch.setattr("distill.evaluation.text_metrics.PARTS", 1)
    assert token_losses(model, windows, device="cpu").loss == pytest.approx(whole, rel=1e-4)
    monkeypatch.setattr("distill.evaluation.text_metrics.PARTS", 5)
    in_parts = token_losses(model, windows, device="cpu").loss
    assert in_parts == pytest.approx(whole, rel=0.05)
    assert in_parts != pytest.approx(whole, rel=1e-6)


def test_bits_are_those_of_characters_not_of_bytes():
    losses = TokenLosses(np.array([6.0, 2.0]), np.array([3, 1]), characters_per_token=0.5)
    metrics = text_metrics(losses)
    assert metrics["loss"] == 2.0
    assert metrics["perplexity"] == pytest.approx(math.exp(2))
    assert metrics["bits_per_character"] == pytest.approx(2 / math.log(2) / 0.5)


@pytest.mark.parametrize("rows", [7, 1000])
def test_the_unigram_loss_is_that_of_the_frequencies_each_counted_once_more(windows, rows, monkeypatch):
    monkeypatch.setattr("distill.evaluation.text_metrics.ROWS_AT_ONCE", rows)
    labels = windows.labels[windows.labels != HIDDEN]
    counts = np.bincount(labels, minlength=261)
    expected = -sum(count / len(labels) * math.log((count + 1) / (len(labels) + 261)) for count in counts)
    assert unigram_loss(windows, windows, 261) == pytest.approx(expected)


def test_a_twin_keeps_everything_and_a_worse_one_less():
    generator = np.random.default_rng(0)
    teacher = TokenLosses(generator.uniform(10, 20, 50), np.full(50, 16), 1.0)
    same = compare_losses(teacher, teacher, 200, 0)
    assert set(same) == {"loss", "perplexity", "bits_per_character"}
    assert all(values == pytest.approx((1.0, 1.0, 1.0)) for values in same.values())
    worse = TokenLosses(teacher.sums * 1.1 + generator.uniform(0, 1, 50), teacher.counts, 1.0)
    value, low, high = compare_losses(teacher, worse, 500, 0)["loss"]
    assert low < value < high < 1
    perplexity = compare_losses(teacher, worse, 500, 0)["perplexity"][0]
    assert perplexity == pytest.approx(math.exp(teacher.loss - worse.loss))
