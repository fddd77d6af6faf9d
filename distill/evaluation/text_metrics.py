"""How well a language model predicts a text: loss, perplexity, and bits per character.

Shapes: n windows, B of a batch, N tokens of a window, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn

from distill.data.batching import collate
from distill.data.labels import HIDDEN
from distill.data.text_windows import TextWindows
from distill.data.token_predictions import labels_at, places_to_predict, predicting
from distill.models.inputs import accepted_inputs

LOGITS_AT_ONCE = 2**24
"""Numbers that a batch of logits has at most: 64 MB in fp32."""

ROWS_AT_ONCE = 1024

PARTS = 16
"""Of a text that is read in order: read side by side."""


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


def unigram_loss(train: TextWindows, validation: TextWindows, vocabulary: int, never: Sequence[int] = ()) -> float:
    """Return the loss, in nats, of predicting every token by how often it occurs in train, each once more.

    Args:
        never: tokens that are not predicted: those that stand around every window of a masked model.
    """
    counts = train.count_tokens(vocabulary) + 1.0
    counts[list(never)] = 1.0
    wanted = np.zeros(vocabulary)
    for start in range(0, len(validation), ROWS_AT_ONCE):
        _, labels = collate(validation, np.arange(start, min(start + ROWS_AT_ONCE, len(validation))))
        wanted += np.bincount(labels[labels != HIDDEN].numpy(), minlength=vocabulary)
    return float(-(np.log(counts / counts.sum()) * wanted).sum() / wanted.sum())


def token_losses(
    model: nn.Module,
    windows: TextWindows,
    *,
    device: torch.device | str,
    autocast_dtype: torch.dtype | None = None,
) -> TokenLosses:
    """Return what predicting every window costs a model in eval mode; on every process, of all windows.

    Every submodule gets its mode back, also after an error. A mechanism whose paper carries a memory from one window
    to the next reads the windows in their order, with that memory.

    Args:
        model: returns an output with ``logits`` (B, N, V).
        autocast_dtype: compute in this dtype where autocast allows it; None: as the weights are.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    kind = torch.device(device).type
    autocast = nullcontext() if autocast_dtype is None else torch.autocast(kind, dtype=autocast_dtype)
    try:
        with torch.no_grad(), autocast:
            if _carries_segments(model):
                parts = list(_losses_in_order(model, windows, device))
            else:
                parts = gather_object(list(_losses_of_share(model, windows, device, PartialState())))
    finally:
        for module, training in modes.items():
            module.training = training
    sums, counts = np.zeros(len(windows)), np.zeros(len(windows), np.int64)
    for indices, losses, wanted in parts:
        sums[indices], counts[indices] = losses, wanted
    return TokenLosses(sums, counts, windows.characters_per_token)


def _carries_segments(model: Any) -> bool:
    mechanism = getattr(model.config, "mechanism", None)
    return getattr(model.config, "causal", False) and mechanism is not None and mechanism.carries_segments


def _losses_of_share(
    model: Any, windows: TextWindows, device: torch.device | str, state: PartialState
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield some windows of this process's share, what each costs, and how many tokens that are."""
    size = max(1, LOGITS_AT_ONCE // (int(model.config.vocab_size) * int(windows.lengths.max())))
    batches = np.array_split(np.arange(len(windows)), math.ceil(len(windows) / size))
    for first in range(0, len(batches), state.num_processes):
        # As in `predict`: sharded weights are gathered by all processes together.
        index = first + state.process_index
        indices = batches[min(index, len(batches) - 1)]
        inputs, labels = collate(windows, indices, device)
        places = places_to_predict(labels, reads_logits=True)
        with predicting(model, places):
            logits = model(**accepted_inputs(model, inputs)).logits
        losses = _losses_of_batch(logits, labels_at(labels, places))
        if index < len(batches):
            yield indices, losses, wanted_of_batch(labels)


def _losses_in_order(
    model: Any, windows: TextWindows, device: torch.device | str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield windows side by side, what each costs, and how many tokens that are.

    Every one is read with the state that the one before it left. The text is cut into some parts, whose first
    windows have none before them.
    """
    parts = np.array_split(np.arange(len(windows)), min(PARTS, len(windows)))  # the longer ones first
    state: Any = None
    for step in range(len(parts[0])):
        indices = np.array([part[step] for part in parts if step < len(part)])
        inputs, labels = collate(windows, indices, device)
        if state is not None:
            layers = tuple(type(each)(*(tensor[: len(indices)] for tensor in each)) for each in state.layers)
            # As in training, every window has the positions from the first on: what is carried is the memory.
            state = state._replace(num_tokens=0, layers=layers)
        output = model(input_ids=inputs["input_ids"], state=state)
        state = output.state
        yield indices, _losses_of_batch(output.logits, labels), wanted_of_batch(labels)


def wanted_of_batch(labels: Tensor) -> np.ndarray:
    """Return how many tokens of each window are to be predicted, int64 (B,)."""
    return (labels != HIDDEN).sum(1).cpu().numpy()


def _losses_of_batch(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Return the summed loss of each window, float64 (B,)."""
    flat = logits.float().flatten(0, 1), labels.flatten()
    each = nn.functional.cross_entropy(*flat, ignore_index=HIDDEN, reduction="none")
    return each.view_as(labels).double().sum(1).cpu().numpy()


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
