"""Token ids packed end to end, and batches that waste little on padding.

Legend: B batch, N sequence length.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

PAD_MULTIPLE = 8
"""Of what a batch is padded to on a GPU, whose tensor cores want it, and of the positions of models. On a CPU pads
cost what tokens do, and batches have as few as they can."""
LEAST_LENGTH = 8
"""What a shorter batch is padded to on a CPU too: some models, Funnel and CANINE, fail on three tokens."""
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What every model here is called with, each (B, N)."""
BATCHES_PER_GROUP = 50
"""Batches that are sorted by length together: many enough that a batch holds one length, few enough that two
epochs do not put the same examples together."""
MAX_TOKENS = 64 * 512
"""Tokens, pads among them, that inference reads at once: 64 texts of what BERT reads at most, 16 of 2,048 tokens."""


@dataclass(frozen=True)
class TokenizedExamples:
    """The tokens of all examples in one flat array; example i is ``token_ids[offsets[i]:offsets[i + 1]]``."""

    token_ids: np.ndarray
    """int32 (total,)"""
    token_type_ids: np.ndarray
    """uint8 (total,): 1 in the second text of a pair."""
    offsets: np.ndarray
    """int64 (n + 1,)"""
    labels: np.ndarray
    """int64 (n,) class indices, float32 (n,) scores, or float32 (n, C) of 0 and 1 for labels decided one by one."""
    ids: np.ndarray
    """int64 (n,): position in the source."""
    pad_token_id: int = 0
    """What the tokenizer fills short examples up with."""
    pad_multiple: int | None = None
    """Batches are padded to their longest example, rounded up to a multiple of this; None: as suits their device."""
    padding_side: str = "right"
    """Where short examples are filled up: right, or left for a model that reads the last column, as XLNet does."""
    token_types: bool = True
    """Whether a batch has token types, which some models read another meaning into than 0."""
    num_cut: int = 0
    """Texts or pairs of which :func:`tokenize` cut the end; of copies made out of them nothing is known."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each example, special tokens included."""
        return np.diff(self.offsets)

    def as_read(
        self, indices: np.ndarray, input_ids: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch's tokens (B, N) as a model reads them, here as they are, and its labels."""
        return input_ids, self.labels[indices]


def length_grouped_batches(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Return one epoch's batches of example indices: random, yet each of nearly one length.

    All examples are shuffled, cut into groups of `BATCHES_PER_GROUP` batches, sorted by length inside each group
    and cut into batches, whose order is shuffled in turn. Every index stands in exactly one batch; the last
    batch is kept although it may be smaller. The same seed and epoch give the same batches.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for group_start in range(0, len(order), batch_size * BATCHES_PER_GROUP):
        group = order[group_start : group_start + batch_size * BATCHES_PER_GROUP]
        group = group[np.argsort(-lengths[group], kind="stable")]
        batches.extend(group[start : start + batch_size] for start in range(0, len(group), batch_size))
    return [batches[index] for index in generator.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, batch_size: int, max_tokens: int | None = MAX_TOKENS) -> list[np.ndarray]:
    """Return batches of example indices for inference, longest first: memory runs out at once or not at all.

    A batch has ``batch_size`` examples, or fewer where it would be longer than ``max_tokens`` with its pads, and at
    least one.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    while len(order):
        fitting = batch_size if max_tokens is None else max_tokens // padded_length(int(lengths[order[0]]))
        count = max(1, min(batch_size, fitting))
        batches.append(order[:count])
        order = order[count:]
    return batches


def padded_length(length: int, pad_multiple: int = PAD_MULTIPLE) -> int:
    """Return ``length`` rounded up, to one multiple at least: the most tokens of a batch whose longest it is."""
    return max(1, -(-length // pad_multiple)) * pad_multiple


def collate(
    examples: TokenizedExamples, indices: np.ndarray, device: torch.device | str | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Return one padded batch: N is the longest of its examples, rounded up to a multiple of ``pad_multiple``.

    Where the examples leave that open, it is `PAD_MULTIPLE`, and 1 on a CPU.

    Returns:
        `MODEL_INPUTS` by name, int64 (B, N), ``attention_mask`` 1 at tokens, ``token_type_ids`` where the model reads
        them; and the labels, int64 or float32 (B,), float32 (B, C), or int64 (B, N).
    """
    starts = examples.offsets[indices]
    lengths = examples.offsets[indices + 1] - starts
    on_cpu = torch.device(device or "cpu").type == "cpu"
    width = padded_length(
        max(LEAST_LENGTH, int(lengths.max())), examples.pad_multiple or (1 if on_cpu else PAD_MULTIPLE)
    )
    positions = np.arange(width)
    if examples.padding_side == "left":
        positions = positions - (width - lengths[:, None])
    is_token = (positions >= 0) & (positions < lengths[:, None])
    source = (starts[:, None] + positions)[is_token]
    input_ids = np.full(is_token.shape, examples.pad_token_id, np.int64)
    input_ids[is_token] = examples.token_ids[source]
    token_type_ids = np.zeros(is_token.shape, np.int64)
    token_type_ids[is_token] = examples.token_type_ids[source]
    input_ids, labels = examples.as_read(indices, input_ids, lengths)
    values = (input_ids, is_token.astype(np.int64), token_type_ids, labels)
    *inputs, targets = (torch.from_numpy(value).to(device, non_blocking=True) for value in values)
    batch = dict(zip(MODEL_INPUTS, inputs, strict=True))
    if not examples.token_types:
        del batch["token_type_ids"]
    return batch, targets


def spread(count: int, most: int) -> np.ndarray:
    """Return at most so many places among ``count``, evenly spread: rows of a file may be sorted by their label."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


def subset(examples: TokenizedExamples, indices: np.ndarray) -> TokenizedExamples:
    """Return the examples at ``indices``, in that order."""
    tokens = [slice(examples.offsets[index], examples.offsets[index + 1]) for index in indices]
    return replace(
        examples,
        token_ids=np.concatenate([examples.token_ids[part] for part in tokens]),
        token_type_ids=np.concatenate([examples.token_type_ids[part] for part in tokens]),
        offsets=np.concatenate([[0], np.cumsum(examples.lengths[indices])]),
        labels=examples.labels[indices],
        ids=examples.ids[indices],
    )


def median_length(validation: Mapping[str, TokenizedExamples]) -> int:
    """Return the median length of the first split's texts in tokens, rounded up to `PAD_MULTIPLE`."""
    return padded_length(int(np.ceil(np.median(next(iter(validation.values())).lengths))))
