"""A training step is timed as the run takes it: of a masked model with the predictions of its masked tokens alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.benchmark.timing import BLOCKS
from distill.data.labels import HIDDEN
from distill.data.text_tokenizers import text_tokenizer
from distill.data.text_windows import read_windows
from pipelines.run import text_comparison, text_steps
from students import StudentConfig, StudentForMaskedLM

TEXT = "a b c d e f g h i j k l m n\n" * 60
LENGTH = 16


@pytest.fixture(scope="module")
def tokenizer():
    return text_tokenizer("wordpiece", [TEXT], 60)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    return StudentForMaskedLM(StudentConfig(vocab_size=len(tokenizer), attention="softmax", **sizes))


def once(make, *, seconds, synchronize):
    """Call everything once, however busy the machine is, in place of timing it."""
    calls = make()
    for call in calls.values():
        call()
    return {name: np.ones((BLOCKS, 1)) for name in calls}


def test_a_step_predicts_and_keeps_no_more_than_its_labels_want(model, monkeypatch):
    monkeypatch.setattr(text_steps, "time_interleaved", once)
    inputs = torch.ones(4, LENGTH, dtype=torch.long)
    labels = torch.full_like(inputs, HIDDEN)
    labels[:, 3] = 7
    predicted = []
    handle = model.cls.register_forward_hook(lambda module, inputs, output: predicted.append(output.shape[1]))
    (few,) = text_steps.time_steps({"student": model}, inputs, labels, None, 1.0)
    assert set(predicted) == {1}
    (all_of_them,) = text_steps.time_steps({"student": model}, inputs, inputs, None, 1.0)
    handle.remove()
    assert few.activation_megabytes < all_of_them.activation_megabytes


def test_steps_of_passages_are_as_long_as_those_of_windows(model, tokenizer, monkeypatch):
    train = read_windows([TEXT], tokenizer, LENGTH, "masked", name="train", of_passages=True)
    seen = []
    monkeypatch.setattr(text_comparison, "time_steps", lambda models, inputs, *rest: seen.append(inputs) or ())
    monkeypatch.setattr(text_comparison, "autocast_dtype", lambda accelerator: None)
    config = SimpleNamespace(
        data=SimpleNamespace(max_length=LENGTH),
        baseline=SimpleNamespace(batch_size=20 * len(train)),  # so that the last passage is among those drawn
        comparison=SimpleNamespace(seconds_per_point=1.0),
    )
    context = SimpleNamespace(config=config, device="cpu", run=SimpleNamespace(accelerator=None))
    text_comparison.training_steps(context, {"teacher": None, "student": model}, train)
    assert seen[0].shape == (20 * len(train), LENGTH)
    assert np.isin(seen[0].numpy(), train.token_ids).all()
