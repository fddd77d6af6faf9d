"""Tokenizers of language models: bytes, characters, words, or word pieces."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distill.config.schema import BYTE, CHARACTER, WORD, WORDPIECE
from distill.data.text_parts import TextPart
from distill.data.tokenization import SPECIAL_TOKENS, train_tokenizer
from distill.utils.progress import progress_bar

SECONDS_UNSHOWN = 3.0
"""Tokenising that is done by then shows no bar."""


def text_tokenizer(unit: str, text: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer of bytes, characters, words or word pieces.

    The first has all 256 bytes; characters and words are those of ``text``, the most frequent ones if there are more
    than ``vocabulary_size`` with the special tokens, and all others are unknown. A word is what stands between spaces,
    and the end of a line is one, as in WikiText-2 and the Penn Treebank.

    Args:
        text: in blocks of whole lines; for word pieces all of it is in memory.
    """
    if unit == WORDPIECE:
        lines = (line for block in text for line in block.splitlines())
        pieces = train_tokenizer(lines, vocabulary_size).backend_tokenizer
        return _wrap(pieces, unit)
    splitter: Any
    each = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    if unit == BYTE:
        units = sorted(pre_tokenizers.ByteLevel.alphabet())
        splitter = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), each])
    elif unit == CHARACTER:
        units, splitter = most_frequent(Counter(chain.from_iterable(text)), vocabulary_size), each
    else:
        assert unit == WORD, unit
        words = chain.from_iterable(re.findall(r"\n|[^\s]+", block) for block in text)
        units = most_frequent(Counter(words), vocabulary_size)
        line_ends = pre_tokenizers.Split("\n", "isolated")
        splitter = pre_tokenizers.Sequence([line_ends, pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed")])
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *units])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel() if unit == BYTE else decoders.Fuse() if unit == CHARACTER else None
    return _wrap(tokenizer, unit)


def _wrap(tokenizer: Tokenizer, unit: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer that adds nothing to a text and says what its unit is."""
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    pad, unknown, first, last, mask = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        text_unit=unit,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        mask_token=mask,
        clean_up_tokenization_spaces=False,
    )


def unit_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the unit of a tokenizer of :func:`text_tokenizer`; word pieces of any other."""
    return str(tokenizer.init_kwargs.get("text_unit", WORDPIECE))


def most_frequent(counts: Counter[str], vocabulary_size: int) -> list[str]:
    """Return the counted units, the most frequent first and alike ones in order, as many as there is room for."""
    for name in SPECIAL_TOKENS:  # one that stands in a text is a word like any other, and unknown
        counts.pop(name, None)
    ranked = sorted(counts, key=lambda unit: (-counts[unit], unit))
    return ranked[: max(1, vocabulary_size - len(SPECIAL_TOKENS))]


def token_blocks(text: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the tokens of every block of a text, int32, and how many characters it has.

    There are no special tokens among them, not even where the text has their names.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.encode_special_tokens = True
    total = len(text) if isinstance(text, TextPart) else None
    with progress_bar(name="tokenise", unit="character", total=total, leave=False, delay=SECONDS_UNSHOWN) as bar:
        for block in text:
            ids = np.array(backend.encode(block, add_special_tokens=False).ids, np.int32)
            # A word that is spelt as a special token is no such token, but one that the vocabulary does not have.
            known = np.where(np.isin(ids, tokenizer.all_special_ids), tokenizer.unk_token_id, ids)
            yield known.astype(np.int32), len(block)
            bar.update(len(block))
