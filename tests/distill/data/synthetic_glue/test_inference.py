"""Inference: quantifiers against every model drawn, implicative verbs, genres."""

import random
from collections import Counter

import pytest

from distill.data.synthetic_glue.inference import (
    CONTRADICTION,
    DENIAL,
    ENTAILMENT,
    FICTION,
    NEUTRAL,
    OFFICE,
    Term,
    includes,
    quantified_label,
    write_mnli,
    write_rte,
)

DOG, ANIMAL, OLD_DOG = Term("dog", "animal"), Term("animal", "animal"), Term("dog", "animal", "old")
RAN, MOVED = Term("ran", "moved"), Term("moved", "moved")


@pytest.mark.parametrize(
    ("premise", "hypothesis", "label"),
    [
        (("every", ANIMAL, RAN), ("every", DOG, MOVED), ENTAILMENT),  # down in the noun, up in the verb
        (("every", DOG, RAN), ("every", ANIMAL, RAN), NEUTRAL),
        (("some", OLD_DOG, RAN), ("some", ANIMAL, MOVED), ENTAILMENT),
        (("no", DOG, MOVED), ("no", OLD_DOG, RAN), ENTAILMENT),
        (("no", DOG, RAN), ("no", DOG, MOVED), NEUTRAL),
        (("no", ANIMAL, MOVED), ("some", DOG, RAN), CONTRADICTION),
        (("every", DOG, RAN), ("not every", OLD_DOG, MOVED), CONTRADICTION),
        (("not every", DOG, MOVED), ("not every", ANIMAL, RAN), ENTAILMENT),
        (("every", DOG, RAN), ("some", DOG, RAN), ENTAILMENT),
    ],
)
def test_monotonicity(premise, hypothesis, label):
    assert quantified_label(premise, hypothesis) == label


def _truth(quantifier: str, noun: set, verb: set) -> bool:
    some, every = bool(noun & verb), noun <= verb
    return {"every": every, "some": some, "no": not some, "not every": not every}[quantifier]


def test_quantified_labels_against_every_model_drawn():
    """A label is right when no drawn model breaks it, and neutral when models of both kinds exist."""
    rng = random.Random(0)
    terms = [Term(word, "g", modifier) for word in ("g", "a", "b") for modifier in ("", "m", "n")]

    def model() -> dict[Term, set]:
        general, modified = (
            {},
            {"": set(range(4))} | {name: set(rng.sample(range(4), rng.randint(1, 4))) for name in "mn"},
        )
        general["g"] = set(rng.sample(range(4), rng.randint(1, 4)))
        for name in "ab":
            general[name] = {item for item in general["g"] if rng.random() < 0.6}
        return {term: general[term.word] & modified[term.modifier] for term in terms}

    models = [(model(), model()) for _ in range(3000)]
    for _ in range(150):
        premise, hypothesis = ((rng.choice(list(DENIAL)), rng.choice(terms), rng.choice(terms)) for _ in range(2))
        outcomes = set()
        for nouns, verbs in models:
            if not (nouns[premise[1]] and nouns[hypothesis[1]]):
                continue
            if _truth(premise[0], nouns[premise[1]], verbs[premise[2]]):
                outcomes.add(_truth(hypothesis[0], nouns[hypothesis[1]], verbs[hypothesis[2]]))
        expected = {frozenset({True}): ENTAILMENT, frozenset({False}): CONTRADICTION}.get(frozenset(outcomes), NEUTRAL)
        assert quantified_label(premise, hypothesis) == expected, (premise, hypothesis, outcomes)


def test_includes_is_reflexive_and_not_symmetric():
    assert includes(DOG, DOG)
    assert includes(ANIMAL, OLD_DOG)
    assert not includes(OLD_DOG, DOG)


@pytest.mark.parametrize(
    ("verb", "done", "undone"),
    [
        ("managed to", ENTAILMENT, CONTRADICTION),
        ("failed to", CONTRADICTION, ENTAILMENT),
        ("did not forget to", ENTAILMENT, CONTRADICTION),
        ("wanted to", NEUTRAL, NEUTRAL),
    ],
)
def test_implicative_verbs(verb, done, undone, drawn):
    seen = Counter()
    for label in (ENTAILMENT, NEUTRAL, CONTRADICTION):
        for premise, hypothesis in drawn(write_mnli, label, 1500):
            if verb not in premise or premise.split()[-2] != hypothesis.split()[-2]:
                continue
            denied = " did not " in hypothesis
            assert label == (undone if denied else done), (premise, hypothesis)
            seen[denied] += 1
    assert min(seen[True], seen[False]) > 5


def test_rte_is_entailment_against_the_rest(drawn):
    for label in (0, 1):
        for premise, hypothesis in drawn(write_rte, label, 600):
            if " by " in premise and " by " in hypothesis and "not" not in premise + hypothesis:
                agents = {text.split(" by ")[1] for text in (premise, hypothesis)}
                assert label == 1
                assert len(agents) == 2


def test_the_mismatched_genre_has_words_of_its_own():
    matched, mismatched = (set(genre.nouns) | set(genre.verbs) for genre in (FICTION, OFFICE))
    assert not matched & mismatched
    assert set(FICTION.people).isdisjoint(OFFICE.people)
