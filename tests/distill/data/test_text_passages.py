"""A text in passages of all lengths, alone or in pairs."""

import numpy as np
import pytest

from distill.data.text_passages import RARE, SHORTEST, passages

LENGTH = 64


@pytest.fixture(scope="module")
def text():
    """Frequent words below 50, and rare ones."""
    random = np.random.default_rng(1)
    frequent, rare = random.integers(50, size=20_000), random.integers(50, 5000, size=20_000)
    return np.where(random.random(20_000) < 0.9, frequent, rare)


@pytest.fixture(scope="module")
def found(text):
    return passages(text, LENGTH, np.random.default_rng(0))


def test_every_token_stands_in_one_input(text, found):
    words = np.concatenate([part for parts in found for part in parts])
    assert np.array_equal(np.sort(words), np.sort(text))


def test_inputs_have_all_lengths_up_to_the_longest(found):
    totals = np.array([sum(map(len, parts)) + 1 + len(parts) for parts in found])
    assert totals.max() == LENGTH
    assert totals.min() <= SHORTEST + 2
    assert len(set(totals.tolist())) > 40
    single = np.array([len(parts[0]) for parts in found if len(parts) == 1])
    short, long = ((low <= single) & (single < 2 * low) for low in (8, 31))
    assert 0.3 < short.sum() / long.sum() < 3  # evenly on the logarithm, but that short ones find a partner more often


def test_about_half_of_the_passages_stand_in_pairs_of_both_kinds(text, found):
    pairs = [parts for parts in found if len(parts) == 2]
    assert {len(parts) for parts in found} == {1, 2}
    assert 0.3 < 2 * len(pairs) / sum(map(len, found)) < 0.8
    places = {tuple(text[start : start + 6].tolist()): start for start in range(len(text) - 5)}

    def start(part):
        return places[tuple(part[:6].tolist())]

    neighbours = [
        first
        for first, second in pairs
        if len(first) > 5 and len(second) > 5 and start(second) == start(first) + len(first)
    ]
    assert 0.25 < len(neighbours) / len(pairs) < 0.9
    others = [(first, second) for first, second in pairs if not any(first is each for each in neighbours)]
    counts = np.bincount(text, minlength=5000)
    sharing = [
        any(counts[word] <= RARE * 4 for word in set(first.tolist()) & set(second.tolist()))
        for first, second in others
        if len(first) > 5 and len(second) > 5
    ]
    assert len(sharing) > 20
    assert np.mean(sharing) > 0.95


def test_the_same_seed_gives_the_same_passages(text, found):
    again = passages(text, LENGTH, np.random.default_rng(0))
    other = passages(text, LENGTH, np.random.default_rng(1))
    assert all(
        np.array_equal(one, two)
        for first, second in zip(found, again, strict=True)
        for one, two in zip(first, second, strict=True)
    )
    assert [len(parts[0]) for parts in found] != [len(parts[0]) for parts in other]


def test_a_text_of_one_word_is_one_passage():
    (parts,) = passages(np.array([7]), LENGTH, np.random.default_rng(0))
    assert [part.tolist() for part in parts] == [[7]]
