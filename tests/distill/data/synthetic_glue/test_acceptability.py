"""Acceptability, read again: agreement, polarity items and minimal pairs."""

import re
from collections import Counter

from distill.data.synthetic_glue.acceptability import write_cola


def test_verbs_agree_with_the_head_across_attractors(drawn):
    pattern = re.compile(r"the (?:(?:old|tall|quiet|new) )?(\w+) (.* )?(is|was|seems|are|were|seem) \w+ \.")
    lengths = Counter()
    for label in (0, 1):
        for (text,) in drawn(write_cola, label, 1500):
            if (match := pattern.fullmatch(text)) is None or "that" in text:
                continue
            head, attractors, verb = match.groups()
            plural_head = head.endswith("s") and head != "actress"
            assert (plural_head == (verb in ("are", "were", "seem"))) == (label == 1), text
            lengths[len((attractors or "").split())] += 1
    assert max(lengths) >= 6


def test_the_negative_polarity_item_needs_no_in_its_own_clause(drawn):
    for label in (0, 1):
        texts = [text for (text,) in drawn(write_cola, label, 800) if " ever " in text]
        assert len(texts) > 20
        assert all(text.startswith("no ") == (label == 1) for text in texts)
        assert all(text.split().count("no") == 1 for text in texts)


def test_the_two_sides_of_a_minimal_pair_differ(drawn):
    pairs = zip(drawn(write_cola, 1), drawn(write_cola, 0), strict=True)
    assert all(good != bad for good, bad in pairs)
