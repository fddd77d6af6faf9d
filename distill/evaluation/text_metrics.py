"""How well a language model predicts a text: loss, perplexity, and bits per character.

Shapes: n windows, B of a batch, N tokens of a window, V vocabulary.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn

from distill.data.batching import collate
from distill.data.labels import HIDDEN
from distill.data.text_windows import TextWindows
from distill.models.inputs import accepted_inputs

LOGITS_AT_ONCE = 2**24
"""Numbers that a batch of logits has at most: 64 MB in fp32."""


@dataclass(frozen=True)
class TokenLosses:
    """What predicting the tokens of every window costs."""

    sums: np.ndarray
    """float64 (n,), in nats."""
    counts: np.ndarray
    """int64 (n,): tokens that were to be predicted."""
    characters_per_token: float

    @property
    def loss(self) -> float:
        """Of a token, in nats."""
        return float(self.sums.sum() / self.counts.sum())


def text_metrics(losses: TokenLosses) -> dict[str, float]:
    """Return the mean loss of a token in nats, its exponential, and the bits that a character of the text costs.

    Unknown tokens cost what [UNK] costs: of words, bits per character compare models of one vocabulary alone.
    """
    loss = losses.loss
    bits = loss / math.log(2) / losses.characters_per_token
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_character": bits}


def unigram_loss(train: TextWindows, validation: TextWindows, vocabulary: int) -> float:
    """Return the loss, in nats, of predicting every token by how often it occurs in train, each once more."""
    counts = np.bincount(train.labels[train.labels != HIDDEN], minlength=vocabulary) + 1.0
    wanted = validation.labels[validation.labels != HIDDEN]
    return float(-np.log(counts / counts.sum())[wanted].mean())


def token_losses(
    model: nn.Module,
    windows: TextWindows,
    *,
    device: torch.device | str,
    autocast_dtype: torch.dtype | None = None,
) -> TokenLosses:
    """Return what predicting every window costs a model in eval mode; on every process, of all windows.

    Every submodule gets its mode back, also after an error.

    Args:
        model: returns an output with ``logits`` (B, N, V).
        autocast_dtype: compute in this dtype where autocast allows it; None: as the weights are.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        state = PartialState()
        parts = gather_object(_losses_of_share(model, windows, device, autocast_dtype, state))
    finally:
        for module, training in modes.items():
            module.training = training
    sums = np.zeros(len(windows))
    for indices, values in parts:
        sums[indices] = values
    return TokenLosses(sums, (windows.labels != HIDDEN).sum(1), windows.characters_per_token)


def _losses_of_share(
    model: nn.Module,
    windows: TextWindows,
    device: torch.device | str,
    autocast_dtype: torch.dtype | None,
    state: PartialState,
) -> list[tuple[np.ndarray, np.ndarray]]:
    vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    size = max(1, LOGITS_AT_ONCE // (vocabulary * int(windows.lengths.max())))
    batches = np.array_split(np.arange(len(windows)), math.ceil(len(windows) / size))
    kind = torch.device(device).type
    autocast = nullcontext() if autocast_dtype is None else torch.autocast(kind, dtype=autocast_dtype)
    found = []
    with torch.no_grad(), autocast:
        for first in range(0, len(batches), state.num_processes):
            # As in `predict`: sharded weights are gathered by all processes together.
            index = first + state.process_index
            indices = batches[min(index, len(batches) - 1)]
            inputs, labels = collate(windows, indices, device)
            logits = model(**accepted_inputs(model, inputs)).logits.float()
            each = nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=HIDDEN, reduction="none"
            )
            if index < len(batches):
                found.append((indices, each.view_as(labels).double().sum(1).cpu().numpy()))
    return found


def compare_losses(
    teacher: TokenLosses, student: TokenLosses, resamples: int, seed: int
) -> Mapping[str, tuple[float, float, float]]:
    """Return teacher / student of every metric, 1 where the student is as good, with its 95 % interval.

    A paired bootstrap over windows, whose tokens depend on each other.
    """
    generator = np.random.default_rng(seed)
    count = len(teacher.sums)
    draws = generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    tokens = draws @ teacher.counts
    own = {role: draws @ each.sums / tokens for role, each in (("teacher", teacher), ("student", student))}

    def interval(value: float, samples: np.ndarray) -> tuple[float, float, float]:
        low, high = np.quantile(samples, [0.025, 0.975])
        return value, float(low), float(high)

    ratio = interval(teacher.loss / student.loss, own["teacher"] / own["student"])
    difference = np.clip(own["teacher"] - own["student"], -700, 700)
    perplexity = interval(math.exp(np.clip(teacher.loss - student.loss, -700, 700)), np.exp(difference))
    return {"loss": ratio, "perplexity": perplexity, "bits_per_character": ratio}
