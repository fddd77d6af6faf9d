"""Long texts put together from the examples at hand, for maps that have to hold at lengths which the data lacks."""

from dataclasses import replace

import numpy as np

from distill.data.batching import TokenizedExamples
from distill.data.labels import hidden_like

PACKED_TEXTS = 256
"""How many a stage reads: enough that no map learns them by heart, few enough to be made in a second."""
SHORTEST = 64
"""Tokens of the shortest packed text, or of the longest where that has fewer."""


def pack(examples: TokenizedExamples, longest: int, count: int, seed: int) -> TokenizedExamples:
    """Return ``count`` texts of all lengths up to ``longest``, each of examples drawn at random, one after the other.

    [CLS] a [SEP] b [SEP] …, cut behind as many tokens as were drawn, evenly on the logarithm, between `SHORTEST` and
    ``longest``. Half as many texts have 200 tokens as have 100, but as many tokens stand in them. Labels are hidden.

    Args:
        examples: each begins with [CLS] and ends with [SEP]; token types are kept.
        longest: in tokens, special ones included.
        count: number of texts.
        seed: the same seed gives the same texts.
    """
    generator = np.random.default_rng(seed)
    shortest = min(SHORTEST, longest)
    lengths = np.exp(generator.uniform(np.log(shortest), np.log(longest + 1), count)).astype(np.int64)
    rows = [_fill(examples, int(length), generator) for length in np.minimum(lengths, longest)]
    order = np.concatenate(rows)
    return replace(
        examples,
        token_ids=examples.token_ids[order],
        token_type_ids=examples.token_type_ids[order],
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        labels=hidden_like(examples.labels, count),
        ids=np.arange(count),
    )


def mean_packed_length(longest: int) -> float:
    """Return how many tokens a packed text has on average."""
    shortest = min(SHORTEST, longest)
    return (longest - shortest) / np.log(longest / shortest) if longest > shortest else float(longest)


def _fill(examples: TokenizedExamples, length: int, generator: np.random.Generator) -> np.ndarray:
    """Return where the ``length`` tokens of one packed text stand among the examples' tokens."""
    parts: list[np.ndarray] = []
    missing = length
    while missing > 0:
        index = generator.integers(len(examples))
        start, end = examples.offsets[index : index + 2]
        tokens = np.arange(start + bool(parts), end)[:missing]  # [CLS] stands in the first one alone
        parts.append(tokens)
        missing -= len(tokens)
    return np.concatenate(parts)
