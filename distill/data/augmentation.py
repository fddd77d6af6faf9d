"""More texts for the stages, made out of the train texts; what they say is the teacher's to judge.

A small task has too few texts to show a student all that its teacher does. TinyBERT (https://arxiv.org/abs/1909.10351,
§3.2) gains 7 points on GLUE by texts with exchanged words. Their labels are hidden: of all losses, ``labels`` alone
reads nothing of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distill.config.schema import AugmentationConfig
from distill.data.batching import TokenizedExamples
from distill.data.labels import hidden_like
from distill.data.word_replacement import (
    nearest_words,
    predict_words,
    replace_words,
    replaceable,
    whole_words,
)

Generator = np.random.Generator


def augment(
    examples: TokenizedExamples,
    settings: AugmentationConfig,
    tokenizer: PreTrainedTokenizerBase,
    word_embeddings: Tensor,
    masked_lm: Any,
    seed: int,
) -> TokenizedExamples:
    """Return the examples, and behind them ``settings.copies`` altered copies of all, without labels.

    Copy i is made by the kind i of the list, which starts again at its end.

    Args:
        word_embeddings: of what the student is made of, (vocabulary, D), in which neighbours are looked for.
        masked_lm: the masked language model that the kind masked_lm asks; else None.
        seed: the same seed gives the same copies.
    """
    kinds = [settings.kinds[copy % len(settings.kinds)] for copy in range(settings.copies or 0)]
    words, where = whole_words(tokenizer), replaceable(examples, tokenizer)
    share, candidates = settings.share, settings.candidates
    if "replace" in kinds:
        neighbours = nearest_words(word_embeddings, words, examples.token_ids, candidates)
    parts = [examples]
    for copy, kind in enumerate(kinds):
        generator = np.random.default_rng((seed, copy))
        if kind == "replace":
            parts.append(replace_words(examples, where, neighbours, share, generator))
        elif kind == "masked_lm":
            mask = tokenizer.mask_token_id
            parts.append(predict_words(examples, where, words, masked_lm, mask, share, candidates, generator))
        elif kind == "cut":
            parts.append(cut_span(examples, np.array(tokenizer.all_special_ids), share, generator))
        else:
            parts.append(mix_examples(examples, generator))
    return join(parts)


def join(parts: Sequence[TokenizedExamples]) -> TokenizedExamples:
    """Put the first part's examples, and behind them those of the others with hidden labels, into one."""
    first, *others = parts
    lengths = np.concatenate([part.lengths for part in parts])
    return replace(
        first,
        token_ids=np.concatenate([part.token_ids for part in parts]),
        token_type_ids=np.concatenate([part.token_type_ids for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=np.concatenate([first.labels, *(hidden_like(first.labels, len(part)) for part in others)]),
        ids=np.concatenate([part.ids for part in parts]),
    )


def cut_span(
    examples: TokenizedExamples, special_ids: np.ndarray, share: float, generator: Generator
) -> TokenizedExamples:
    """Leave out ``share`` of every example's tokens, in one span; special tokens and at least one other stay."""
    is_text = ~np.isin(examples.token_ids, special_ids)
    keep = np.ones(len(is_text), bool)
    for start, end in zip(examples.offsets[:-1], examples.offsets[1:], strict=True):
        places = start + np.flatnonzero(is_text[start:end])
        count = min(max(1, round(share * len(places))), len(places) - 1)
        if count > 0:
            first = generator.integers(len(places) - count + 1)
            keep[places[first : first + count]] = False
    kept = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
    return replace(
        examples,
        token_ids=examples.token_ids[keep],
        token_type_ids=examples.token_type_ids[keep],
        offsets=kept[examples.offsets],
    )


def mix_examples(examples: TokenizedExamples, generator: Generator) -> TokenizedExamples:
    """Let every example end as another one ends: of pairs, by its second text; else from a random point on.

    What would be longer than the longest example stays as it is.
    """
    partners, cuts = generator.permutation(len(examples)), generator.random(len(examples))
    longest = examples.lengths.max()
    rows = []
    for index, (partner, cut) in enumerate(zip(partners, cuts, strict=True)):
        (start, head), (tail, end) = _split(examples, index, cut), _split(examples, partner, cut, last=True)
        whole = np.arange(examples.offsets[index], examples.offsets[index + 1])
        mixed = np.concatenate([np.arange(start, head), np.arange(tail, end)])
        rows.append(mixed if len(mixed) <= longest else whole)
    order = np.concatenate(rows)
    return replace(
        examples,
        token_ids=examples.token_ids[order],
        token_type_ids=examples.token_type_ids[order],
        offsets=np.concatenate([[0], np.cumsum([len(each) for each in rows])]).astype(np.int64),
    )


def _split(examples: TokenizedExamples, index: int, cut: float, last: bool = False) -> tuple[int, int]:
    """Return where the first, or the last, part of an example begins and ends; neither is empty."""
    start, end = examples.offsets[index : index + 2]
    first_text = int((examples.token_type_ids[start:end] == 0).sum())
    is_pair = first_text < end - start
    middle = start + (first_text if is_pair else max(1, int(cut * (end - start - 1))))
    return (middle, end) if last else (start, middle)
