"""A text cut into windows of one length, each with the tokens that a language model has to predict there.

The text is read block by block and its windows lie on disk, so that it may be larger than the memory. Shapes: T tokens
of the text, N of a window, n windows, B of a batch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.data.batching import TokenizedExamples, subset
from distill.data.labels import HIDDEN
from distill.data.spooled_arrays import SpooledArray
from distill.data.text_passages import passages
from distill.data.text_tokenizers import token_blocks
from distill.data.token_store import id_type
from distill.tasks import CAUSAL
from distill.utils.errors import UserError

MASKED_SHARE = 0.15
"""Of the tokens, as in BERT: four fifths of them become [MASK], a tenth another token, a tenth stay."""
TOKENS_TOGETHER = 2**18
"""Passages are drawn, and paired, within so many tokens."""
COUNTED_TOGETHER = 2**20


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
    """Windows of a text.

    Of a causal model ``labels`` is (n, N), the token to predict at each place, `HIDDEN` behind a window's end. Of a
    masked one tokens are masked as they are read, and ``labels`` says nothing.
    """

    characters_per_token: float = 1.0
    """Of the whole text."""
    unknown_share: float = 0.0
    """Of its tokens, those that the vocabulary does not have."""
    masking: Masking | None = None
    """None of a causal model."""
    pass_number: int = 0
    """Each pass over the windows masks other tokens."""

    def in_pass(self, number: int) -> "TextWindows":
        """Return the windows as a pass over them, counted from 0, reads them: each with other tokens masked.

        RoBERTa's dynamic masking (https://arxiv.org/abs/1907.11692, §4.1).
        """
        return replace(self, pass_number=number)

    def as_read(
        self, indices: np.ndarray, input_ids: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of a batch as a model reads them, and those that it has to predict, int64 (B, N)."""
        labels: np.ndarray = np.full(input_ids.shape, HIDDEN, np.int64)
        if self.masking is None:
            wanted = self.labels[indices][:, : labels.shape[-1]]
            labels[:, : wanted.shape[-1]] = wanted
            return input_ids, labels
        for row, index in enumerate(indices):
            generator = np.random.default_rng((self.masking.seed, self.pass_number, int(self.ids[index])))
            window = input_ids[row, : lengths[row]]
            chosen = choose_masked(window, self.masking, generator)
            labels[row, chosen] = window[chosen]
            window[chosen] = hidden_tokens(window[chosen], self.masking, generator)
        return input_ids, labels

    def count_tokens(self, vocabulary: int) -> np.ndarray:
        """Return how often every token occurs in the windows, or, of a causal model, follows one: (vocabulary,)."""
        source = self.token_ids if self.masking is not None else self.labels
        counts = np.zeros(vocabulary, np.int64)
        rows = max(1, COUNTED_TOGETHER // int(np.prod(source.shape[1:])))
        for start in range(0, len(source), rows):
            part = source[start : start + rows].reshape(-1)
            counts += np.bincount(part[part != HIDDEN], minlength=vocabulary)
        return counts


def read_windows(
    text: Iterable[str],
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
    """Return a text, which comes in blocks, in windows of ``length`` tokens.

    Args:
        kind: causal: the label of a token is the next one; masked: [CLS] and [SEP] stand around a window.
        name: of the split, for messages.
        seed: of what is masked, and of which windows are taken where there are more than ``most``.
        whole: keep a last window that is shorter; each has ``length`` tokens otherwise.
        of_passages: of a masked model, windows of all lengths up to that, with one passage or two
            (`distill.data.text_passages`).

    Raises:
        UserError: the text is shorter than one window, or there is no room for its tokens on the disk.
    """
    read, is_causal = ReadText(text, tokenizer), kind == CAUSAL
    ids, types = SpooledArray(id_type(len(tokenizer))), SpooledArray(np.uint8)
    labels = SpooledArray(np.int32, (length,))
    lengths: list[int] = []
    if is_causal:
        rows = causal_windows(iter(read), length)
    else:
        generator = np.random.default_rng(seed)
        parts = passages_of(iter(read), length, generator) if of_passages else one_behind_the_other(iter(read), length)
        rows = between_special_tokens(parts, tokenizer)
    for tokens, beside in rows:
        if not (whole or of_passages) and len(tokens) < length:
            continue  # the last one
        lengths.append(len(tokens))
        ids.append(tokens)
        types.append(np.zeros(len(tokens), np.uint8) if is_causal else beside)
        if is_causal:
            labels.append(np.pad(beside, (0, length - len(beside)), constant_values=HIDDEN))
    if not any(each == length or of_passages for each in lengths):
        raise UserError(
            f"{name}: the text has {read.tokens:,} tokens, fewer than one sequence of data.max_length {length}; "
            "give a longer text, or a smaller data.max_length"
        )
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    windows = TextWindows(
        token_ids=ids.finish(),
        token_type_ids=types.finish(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=labels.finish() if is_causal else np.full(len(lengths), HIDDEN, np.int8),
        ids=np.arange(len(lengths)),
        pad_token_id=tokenizer.pad_token_id or 0,
        characters_per_token=read.characters / read.tokens,
        unknown_share=read.unknown / read.tokens,
        masking=None if is_causal else Masking(tokenizer.mask_token_id, special, len(tokenizer), seed),
    )
    if most is None or most >= len(windows):
        return windows
    kept = np.sort(np.random.default_rng(seed).choice(len(windows), most, replace=False))
    few = subset(windows, kept)
    assert isinstance(few, TextWindows)
    return few


class ReadText:
    """The tokens of a text, block by block, and how much of it there was.

    Args:
        text: in blocks of whole lines.
    """

    def __init__(self, text: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> None:
        self.text, self.tokenizer = text, tokenizer
        self.tokens = self.characters = self.unknown = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the tokens of every block, int32."""
        for ids, characters in token_blocks(self.text, self.tokenizer):
            self.tokens += len(ids)
            self.characters += characters
            self.unknown += int((ids == self.tokenizer.unk_token_id).sum())
            yield ids


def stretches(blocks: Iterable[np.ndarray], size: int, more: int = 0) -> Iterator[np.ndarray]:
    """Yield the tokens of blocks in stretches of ``size`` and so many ``more``, with which the next one begins.

    The last may be shorter; it is left out where nothing in it is new.
    """
    rest = np.zeros(0, np.int32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        ends = range(size + more, len(rest) + 1, size)
        yield from (rest[end - size - more : end] for end in ends)
        rest = rest[len(ends) * size :]
    if len(rest) > more:
        yield rest


def causal_windows(blocks: Iterable[np.ndarray], length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the windows of a text, one behind the other, and the token that follows each of theirs."""
    for both in stretches(blocks, length, 1):
        yield both[:-1], both[1:]


def one_behind_the_other(blocks: Iterable[np.ndarray], length: int) -> Iterator[list[np.ndarray]]:
    """Yield the windows of a text, one behind the other, with room for [CLS] and [SEP]."""
    for window in stretches(blocks, length - 2):
        yield [window]


def passages_of(
    blocks: Iterable[np.ndarray], length: int, generator: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """Yield passages and pairs of a text, in a random order within `TOKENS_TOGETHER`."""
    for tokens in stretches(blocks, TOKENS_TOGETHER):
        yield from passages(tokens, length, generator)


def between_special_tokens(
    inputs: Iterable[list[np.ndarray]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield [CLS] a [SEP], or [CLS] a [SEP] b [SEP], of every input's passages, and the token types."""
    start, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    for parts in inputs:
        ended = [np.concatenate([part, end]) for part in parts]
        own = [np.full(len(part), number, np.uint8) for number, part in enumerate(ended)]
        yield np.concatenate([start, *ended]).astype(np.int64), np.concatenate([np.zeros(1, np.uint8), *own])


def choose_masked(window: np.ndarray, masking: Masking, generator: np.random.Generator) -> np.ndarray:
    """Return which places of a window are to be predicted: `MASKED_SHARE` of them, one at least."""
    places = np.flatnonzero(~np.isin(window, masking.special_tokens))
    return generator.choice(places, min(len(places), masked_count(len(places))), replace=False)


def masked_count(tokens: int) -> int:
    """Return how many of so many tokens are masked."""
    return max(1, round(MASKED_SHARE * tokens))


def hidden_tokens(tokens: np.ndarray, masking: Masking, generator: np.random.Generator) -> np.ndarray:
    """Return what stands in the places of tokens that are to be predicted (BERT, arXiv 1810.04805)."""
    how = generator.random(len(tokens))
    other = generator.integers(masking.vocabulary, size=len(tokens))
    return np.where(how < 0.8, masking.mask_token, np.where(how < 0.9, other, tokens))
