"""What a phase is said to need: of a language model, predictions of those tokens alone that a loss reads."""

import pytest

from distill.config.schema import StageConfig
from distill.data.text_tokenizers import text_tokenizer
from distill.data.text_windows import read_windows
from distill.preflight.memory_estimate import prediction_memory
from pipelines.run.resources import predicted_tokens

TEXT = "a b c d e f g h i j k l m n\n" * 20
LAYERS = StageConfig("layers", 1, 1e-3, {"hidden_states": 1.0})
LOGITS = StageConfig("logits", 1, 1e-3, {"logits": 0.9, "labels": 0.1})


@pytest.fixture(scope="module")
def windows():
    tokenizer = text_tokenizer("wordpiece", [TEXT], 60)
    return {kind: read_windows([TEXT], tokenizer, 16, kind, name="train", whole=True) for kind in ("causal", "masked")}


@pytest.mark.parametrize(
    ("kind", "stage", "predicted"),
    [("masked", LOGITS, 15), ("masked", LAYERS, 0), ("causal", LOGITS, None), ("causal", LAYERS, 0)],
)
def test_predictions_that_no_loss_reads_take_no_memory(windows, kind, stage, predicted):
    assert predicted_tokens(windows[kind], stage, 100) == predicted


def test_a_classifier_predicts_as_it_always_does():
    assert predicted_tokens(object(), LOGITS, 100) is None


@pytest.mark.parametrize(
    ("losses", "arrays"),
    [
        ({"hidden_states": 1.0}, 0),
        ({"labels": 1.0}, 4),
        ({"logits": 1, "hidden_states": 1}, 9),
        (LOGITS.losses, 10),
    ],
)
def test_predictions_take_what_their_losses_make_of_them(losses, arrays):
    assert prediction_memory(losses, 15, 1000) == arrays * 15 * 1000 * 4
