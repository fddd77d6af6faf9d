"""A text cut into windows of one length, each with the tokens that a language model has to predict there.

Shapes: T tokens of the text, N of a window, n windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.data.batching import TokenizedExamples
from distill.data.labels import HIDDEN
from distill.data.text_passages import passages
from distill.data.text_tokenizers import token_ids
from distill.tasks import CAUSAL
from distill.utils.errors import UserError

MASKED_SHARE = 0.15
"""Of the tokens, as in BERT: four fifths of them become [MASK], a tenth another token, a tenth stay."""


@dataclass(frozen=True)
class Masking:
    """How the windows of a masked language model are masked."""

    mask_token: int
    special_tokens: tuple[int, ...]
    """Which are never masked."""
    vocabulary: int
    seed: int


@dataclass(frozen=True)
class TextWindows(TokenizedExamples):
    """Windows of a text; ``labels`` is int64 (n, N): the token to predict at each place, `HIDDEN` where none is."""

    characters_per_token: float = 1.0
    """Of the whole text."""
    unknown_share: float = 0.0
    """Of its tokens, those that the vocabulary does not have."""
    masking: Masking | None = None
    """None of a causal model."""

    @property
    def tokens(self) -> np.ndarray:
        """The tokens of all windows, those that were masked in their places; of a causal model each is the next."""
        place = np.arange(self.labels.shape[1]) < self.lengths[:, None]
        wanted = self.labels[place]
        return np.where(wanted == HIDDEN, self.token_ids, wanted)

    def in_pass(self, number: int) -> "TextWindows":
        """Return the windows as a pass over them reads them: from the second, 1, on with other tokens masked.

        RoBERTa's dynamic masking (https://arxiv.org/abs/1907.11692, §4.1).
        """
        if self.masking is None or number == 0:
            return self
        generator = np.random.default_rng((self.masking.seed, number))
        inputs, labels = mask(np.split(self.tokens, self.offsets[1:-1]), self.masking, generator)
        return replace(
            self,
            token_ids=np.concatenate(inputs).astype(np.int32),
            labels=in_rows(labels, self.labels.shape[1]),
        )


def read_windows(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    kind: str,
    *,
    name: str,
    seed: int = 0,
    most: int | None = None,
    whole: bool = False,
    of_passages: bool = False,
) -> TextWindows:
    """Return a text in windows of ``length`` tokens.

    Args:
        kind: causal: the label of a token is the next one; masked: [CLS] and [SEP] stand around a window, and labels
            are the tokens that were masked.
        name: of the split, for messages.
        seed: of what is masked, and of which windows are taken where there are more than ``most``.
        whole: keep a last window that is shorter; each has ``length`` tokens otherwise.
        of_passages: of a masked model, windows of all lengths up to that, with one passage or two
            (`distill.data.text_passages`).

    Raises:
        UserError: the text is shorter than one window.
    """
    tokens, masking = token_ids(text, tokenizer), None
    if kind == CAUSAL:
        inputs, labels = causal_windows(tokens, length)
        types = [np.zeros(len(row), np.uint8) for row in inputs]
    else:
        generator = np.random.default_rng(seed)
        parts = passages(tokens, length, generator) if of_passages else one_behind_the_other(tokens, length)
        inputs, types = between_special_tokens(parts, tokenizer)
        special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        masking = Masking(tokenizer.mask_token_id, special, len(tokenizer), seed)
        inputs, labels = mask(inputs, masking, generator)
    complete = [index for index, row in enumerate(inputs) if of_passages or len(row) == length]
    if not complete:
        raise UserError(
            f"{name}: the text has {len(tokens):,} tokens, fewer than one sequence of data.max_length {length}; "
            "give a longer text, or a smaller data.max_length"
        )
    kept = list(range(len(inputs))) if whole else complete
    if most is not None and most < len(kept):
        kept = sorted(np.random.default_rng(seed).choice(kept, most, replace=False).tolist())
    rows = [inputs[index] for index in kept]
    lengths = [len(row) for row in rows]
    return TextWindows(
        token_ids=np.concatenate(rows).astype(np.int32),
        token_type_ids=np.concatenate([types[index] for index in kept]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=in_rows([labels[index] for index in kept], length),
        ids=np.array(kept, np.int64),
        pad_token_id=tokenizer.pad_token_id or 0,
        characters_per_token=len(text) / len(tokens),
        unknown_share=float((tokens == tokenizer.unk_token_id).mean()),
        masking=masking,
    )


def in_rows(labels: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Return the labels of windows as int64 (n, length), `HIDDEN` behind the end of each."""
    rows = np.full((len(labels), length), HIDDEN, np.int64)
    for row, wanted in zip(rows, labels, strict=True):
        row[: len(wanted)] = wanted
    return rows


def causal_windows(tokens: np.ndarray, length: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the windows of a text, one behind the other, and the token that follows each of theirs."""
    starts = range(0, max(0, len(tokens) - 1), length)
    inputs = [tokens[start : min(start + length, len(tokens) - 1)] for start in starts]
    return inputs, [tokens[start + 1 : start + 1 + length] for start in starts]


def one_behind_the_other(tokens: np.ndarray, length: int) -> list[list[np.ndarray]]:
    """Return the windows of a text, one behind the other, with room for [CLS] and [SEP]."""
    return [[tokens[start : start + length - 2]] for start in range(0, len(tokens), length - 2)]


def between_special_tokens(
    inputs: Sequence[Sequence[np.ndarray]], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return [CLS] a [SEP], or [CLS] a [SEP] b [SEP], of every input's passages, and the token types."""
    start, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    rows, types = [], []
    for parts in inputs:
        ended = [np.concatenate([part, end]) for part in parts]
        rows.append(np.concatenate([start, *ended]).astype(np.int64))
        own = [np.full(len(part), number, np.uint8) for number, part in enumerate(ended)]
        types.append(np.concatenate([np.zeros(1, np.uint8), *own]))
    return rows, types


def mask(
    windows: Sequence[np.ndarray], masking: Masking, generator: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return windows with some tokens masked, special ones aside, and those tokens (BERT, arXiv 1810.04805)."""
    inputs, labels = [], []
    for window in windows:
        places = np.flatnonzero(~np.isin(window, masking.special_tokens))
        chosen = np.zeros(len(window), bool)
        count = min(len(places), max(1, round(MASKED_SHARE * len(places))))
        chosen[generator.choice(places, count, replace=False)] = True
        labels.append(np.where(chosen, window, HIDDEN))
        how = generator.random(len(window))
        other = generator.integers(masking.vocabulary, size=len(window))
        masked = np.where(how < 0.8, masking.mask_token, np.where(how < 0.9, other, window))
        inputs.append(np.where(chosen, masked, window))
    return inputs, labels
