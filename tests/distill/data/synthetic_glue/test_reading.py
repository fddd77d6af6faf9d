"""Reading, read again: which event answers a question, whom a pronoun means."""

import re

import pytest

from distill.data.synthetic_glue.lexicon import MAKING, MONTHS, PLACES
from distill.data.synthetic_glue.reading import write_qnli, write_wnli


@pytest.mark.parametrize("label", [0, 1])
def test_a_question_is_answered_exactly_when_its_own_event_says_so(label, drawn):
    for question, text in drawn(write_qnli, label):
        thing = question.split(" the ")[1].split()[0]
        (clause,) = [part for part in text.removesuffix(" .").split(" and ") if thing in part.split()]
        tokens = clause.split()
        stated = {
            "who": tokens[0] != "the",
            "where": bool(set(tokens) & set(PLACES)),
            "when": bool(set(tokens) & set(MONTHS)),
        }[question.split()[0]]
        assert any(past in tokens or base in tokens for base, past in MAKING.items())
        assert (stated and "not" not in tokens) == (label == 0), (question, text)


# What x is where the sentence is true, and y likewise.
CUES = {
    "fits": ("small", "big"),
    "hold": ("big", "small"),
    "broke": ("hard", "fragile"),
    "caught": ("fast", "slow"),
    "beat": ("skilled", "clumsy"),
}
INFINITIVES = {"fit": "fits", "break": "broke", "catch": "caught"}
ANTONYMS = {"small": "big", "fast": "slow", "skilled": "clumsy", "hard": "soft", "fragile": "sturdy"}
ANTONYMS |= {second: first for first, second in ANTONYMS.items()}


@pytest.mark.parametrize("label", [0, 1])
def test_pronouns_follow_verb_cue_negation_and_connective(label, drawn):
    for text, reading in drawn(write_wnli, label):
        x, y = re.findall(r"the (\w+)", text)
        tokens = {INFINITIVES.get(token, token) for token in text.split()}
        (verb,) = tokens & set(CUES)
        cue = reading.split()[-2]
        if (tokens & {"not", "cannot"} != set()) != ("although" in tokens):
            cue = ANTONYMS[cue]
        assert cue in CUES[verb]
        right = x if cue == CUES[verb][0] else y
        assert (reading.split()[1] == right) == (label == 1), (text, reading)
