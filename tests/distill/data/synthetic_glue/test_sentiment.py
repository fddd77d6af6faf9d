"""Sentiment, read again: negators turn the adjective over, the main clause decides."""

import random
import re

import pytest

from distill.data.synthetic_glue.lexicon import NEGATIVE, POSITIVE
from distill.data.synthetic_glue.sentiment import opinion, write_sst2

NEGATORS = re.compile(
    r"\b(not (?!just)|never|far from|anything but|hardly|nobody|nothing about|cannot|deny|stops|less than)"
)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_each_negation_turns_the_adjective_over(depth, positive):
    wanted = set(POSITIVE if positive ^ (depth == 1) else NEGATIVE)
    other = set(NEGATIVE if positive ^ (depth == 1) else POSITIVE)
    for seed in range(200):
        tokens = set(opinion(random.Random(seed), positive, depth).split())
        assert tokens & wanted
        assert not tokens & other


@pytest.mark.parametrize("label", [0, 1])
def test_the_clause_after_but_decides_the_review(label, drawn):
    mains = [text.split(" , but ")[1] for (text,) in drawn(write_sst2, label, 2000) if " , but " in text]
    assert len(mains) > 100
    for main in mains:
        is_positive = bool(set(main.split()) & set(POSITIVE))
        assert bool(set(main.split()) & set(NEGATIVE)) != is_positive
        turned = len(NEGATORS.findall(main)) % 2 == 1
        assert (is_positive ^ turned) == (label == 1), main


@pytest.mark.parametrize("label", [0, 1])
def test_the_strong_side_outweighs_the_weak_one(label, drawn):
    pattern = re.compile(r"(?:utterly|absolutely|completely|totally) (\w+)")
    strong = [match[1] for (text,) in drawn(write_sst2, label, 1000) if (match := pattern.search(text))]
    assert len(strong) > 30
    assert set(strong) <= set(POSITIVE if label == 1 else NEGATIVE)
