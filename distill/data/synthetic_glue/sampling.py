"""Small seeded choices that the grammars are written with."""

import random
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import TypeVar

Item = TypeVar("Item")


@cache
def _zipf_weights(size: int) -> list[float]:
    return list(accumulate(1 / (rank + 4) for rank in range(size)))


def zipf(rng: random.Random, items: Sequence[Item]) -> Item:
    """Choose one item, the r-th with weight 1 / (r + 4): rare words stay rare, as in real text."""
    return rng.choices(items, cum_weights=_zipf_weights(len(items)))[0]


def maybe(rng: random.Random, probability: float, words: Sequence[str]) -> str:
    """Choose one of ``words`` with the given probability, else the empty string."""
    return rng.choice(words) if rng.random() < probability else ""


def weighted(rng: random.Random, shares: dict[Item, float]) -> Item:
    """Choose a key with probability proportional to its value."""
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def sentence(*parts: str, end: str = ".") -> str:
    """Join the non-empty parts by single spaces and close the sentence."""
    return " ".join(" ".join(part for part in (*parts, end) if part).split())
