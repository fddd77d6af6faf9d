"""Paraphrases, read again: reports as events, questions in one direction."""

import re

import pytest

from distill.data.synthetic_glue.paraphrase import write_mrpc, write_qqp

PERSON = r"the ((?:old|young|rich|famous) )?(\w+)"
REPORT = re.compile(rf"(?:in (\w+) , )?{PERSON} (was )?(\w+)( by)? {PERSON}(?: in (\w+))? \.")
SYNONYMS = "praised lauded admired,blamed accused criticized"
RISES, FALLS = {"rose", "climbed", "gained"}, {"fell", "dropped", "slid"}


def _read_report(text: str) -> tuple:
    """What a report says, in one form: who did what to whom, or how each company moved."""
    tokens = text.split()
    if set(tokens) & (RISES | FALLS):
        tokens = [token for token in tokens if token not in ("shares", "stock")]
        changes = {tokens[place - 1]: token in RISES for place, token in enumerate(tokens) if token in RISES | FALLS}
        return changes, {token for token in tokens if token in ("two", "five", "ten") or token.endswith("day")}
    before, adjective, noun, passive, verb, _, other_adjective, other, after = REPORT.fullmatch(text).groups()
    roles = [(adjective, noun), (other_adjective, other)]
    row = next(number for number, verbs in enumerate(SYNONYMS.split(",")) if verb in verbs.split())
    return tuple(roles[::-1] if passive else roles), row, before or after


@pytest.mark.parametrize("label", [0, 1])
def test_reports_are_equivalent_exactly_when_they_tell_the_same_event(label, drawn):
    for first, second in drawn(write_mrpc, label):
        assert first != second
        assert (_read_report(first) == _read_report(second)) == (label == 1), (first, second)


@pytest.mark.parametrize("label", [0, 1])
def test_a_question_turned_over_twice_stays_the_same(label, drawn):
    opposites = {"bigger": "smaller", "older": "younger", "richer": "poorer", "safer": "less safe"}
    pattern, seen = re.compile(r"is (\w+) ([\w ]+) than (\w+) \?"), 0
    for pair in drawn(write_qqp, label):
        matches = [pattern.fullmatch(question) for question in pair]
        if None in matches:
            continue
        seen += 1
        # Write each as 'more x': the opposite adjective with the two turned around.
        readings = []
        for match in matches:
            one, adjective, other = match.groups()
            positive = next((key for key, value in opposites.items() if value == adjective), None)
            readings.append((other, positive, one) if positive else (one, adjective, other))
        assert (readings[0] == readings[1]) == (label == 1), pair
    assert seen > 30
