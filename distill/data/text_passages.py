"""A text in passages of all lengths, alone or in pairs, as classifiers read texts.

A classifier reads sentences, reviews and pairs of sentences, not windows of one length. So that layers fitted on raw
text hold there, passages have lengths drawn evenly on the logarithm; half of them stand in pairs: a passage and its
neighbour, or one that shares a rare word with it, whose tokens compare as those of paraphrases and of answers do.
"""

from collections.abc import Sequence

import numpy as np

SHORTEST = 8
"""Tokens of the shortest passage."""
PAIR_SHARE, NEIGHBOUR_SHARE = 0.5, 0.5
"""Of the passages, those in pairs; of the pairs, those of neighbours."""
RARE = 50
"""A word that stands in more passages than that says little about what two of them have in common."""


def passages(tokens: np.ndarray, length: int, generator: np.random.Generator) -> list[list[np.ndarray]]:
    """Cut the tokens of a text into inputs of one passage or two; every token stands in one of them.

    Args:
        tokens: (T,), without special ones.
        length: most tokens of an input, [CLS] and one [SEP] per passage included.
        generator: draws lengths and pairs.

    Returns:
        For each input its passages, in the order in which they are read.
    """
    cuts = _cut(tokens, length - 2, generator)
    pairs = _pairs(cuts, length - 3, generator)
    paired = {place for pair in pairs for place in pair}
    alone = [[cuts[place]] for place in range(len(cuts)) if place not in paired]
    together = [[cuts[first], cuts[second]] for first, second in pairs]
    found = alone + together
    return [found[place] for place in generator.permutation(len(found))]


def _cut(tokens: np.ndarray, longest: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Cut tokens into passages one behind the other, of lengths drawn evenly on the logarithm."""
    shortest, cuts, start = min(SHORTEST, longest), [], 0
    while start < len(tokens):
        size = int(np.exp(generator.uniform(np.log(shortest), np.log(longest + 1))))
        cuts.append(tokens[start : start + min(size, longest)])
        start += len(cuts[-1])
    return cuts


def _pairs(cuts: Sequence[np.ndarray], room: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Draw pairs of passages that fit into ``room`` tokens together; no passage stands in two."""
    wanted = generator.random(len(cuts)) < PAIR_SHARE
    by_neighbour = generator.random(len(cuts)) < NEIGHBOUR_SHARE
    places = _places_of_rare_words(cuts)
    free = np.ones(len(cuts), bool)
    pairs = []
    for first, own in enumerate(cuts):
        if not (wanted[first] and free[first]):
            continue
        others = [first + 1] if by_neighbour[first] else _sharing(own, places)
        fitting = (each for each in others if each < len(cuts) and each != first and free[each])
        second = next((each for each in fitting if len(own) + len(cuts[each]) <= room), None)
        if second is not None:
            free[[first, second]] = False
            pairs.append((first, second))
    return pairs


def _places_of_rare_words(cuts: Sequence[np.ndarray]) -> dict[int, list[int]]:
    """Return, of every token that stands in few passages but in more than one, which they are."""
    places: dict[int, list[int]] = {}
    for place, own in enumerate(cuts):
        for token in np.unique(own).tolist():
            places.setdefault(token, []).append(place)
    return {token: found for token, found in places.items() if 1 < len(found) <= RARE}


def _sharing(own: np.ndarray, places: dict[int, list[int]]) -> list[int]:
    """Return the passages that share a rare word with one, those of its rarest word first."""
    rare = sorted((len(places[token]), token) for token in set(own.tolist()) if token in places)
    return [place for _, token in rare for place in places[token]]
