"""Tokenizers of language models: bytes, characters, words, or word pieces."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distill.config.schema import BYTE, CHARACTER, WORD, WORDPIECE
from distill.data.tokenization import SPECIAL_TOKENS, train_tokenizer
from distill.utils.progress import progress_bar

CHARACTERS_PER_CALL = 100_000


def text_tokenizer(unit: str, text: str, vocabulary_size: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer of bytes, characters, words or word pieces.

    The first has all 256 bytes; characters and words are those of ``text``, the most frequent ones if there are more
    than ``vocabulary_size`` with the special tokens, and all others are unknown. A word is what stands between spaces,
    and the end of a line is one, as in WikiText-2 and the Penn Treebank.
    """
    if unit == WORDPIECE:
        return train_tokenizer(text.splitlines(), vocabulary_size)
    splitter: Any
    each = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    if unit == BYTE:
        units = sorted(pre_tokenizers.ByteLevel.alphabet())
        splitter = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), each])
    elif unit == CHARACTER:
        units, splitter = most_frequent(text, vocabulary_size), each
    else:
        assert unit == WORD, unit
        units = most_frequent(text.replace("\n", " \n ").split(" "), vocabulary_size)
        line_ends = pre_tokenizers.Split("\n", "isolated")
        splitter = pre_tokenizers.Sequence([line_ends, pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed")])
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *units])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel() if unit == BYTE else decoders.Fuse() if unit == CHARACTER else None
    pad, unknown, first, last, mask = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        mask_token=mask,
        clean_up_tokenization_spaces=False,
    )


def most_frequent(units: str | list[str], vocabulary_size: int) -> list[str]:
    """Return the different units, the most frequent first and alike ones in order, as many as there is room for."""
    counts = Counter(units)
    counts.pop("", None)
    ranked = sorted(counts, key=lambda unit: (-counts[unit], unit))
    return ranked[: max(1, vocabulary_size - len(SPECIAL_TOKENS))]


def token_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the tokens of a text, without special ones: int32 (T,)."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    parts = list(lines_together(text))
    with progress_bar(parts, name="tokenise", unit="part", leave=False, disable=len(parts) < 20) as bar:
        rows = [np.array(backend.encode(part, add_special_tokens=False).ids, np.int32) for part in bar]
    return np.concatenate(rows) if rows else np.zeros(0, np.int32)


def lines_together(text: str) -> Iterator[str]:
    """Yield whole lines of some hundred thousand characters; a longer line is one part."""
    start = 0
    while start < len(text):
        end = text.find("\n", min(start + CHARACTERS_PER_CALL, len(text)))
        end = len(text) if end < 0 else end + 1
        yield text[start:end]
        start = end
