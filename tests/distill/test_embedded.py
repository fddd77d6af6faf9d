"""The embedded GLUE: its form, its splits, and its labels against independent readings of the sentences."""

import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from distill.embedded import EMBEDDED_TASKS, LABEL_NOISE, generate
from distill.embedded.acceptability import write_cola
from distill.embedded.inference import (
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
from distill.embedded.lexicon import MAKING, MONTHS, NEGATIVE, PLACES, POSITIVE
from distill.embedded.paraphrase import write_mrpc, write_qqp
from distill.embedded.reading import write_qnli, write_wnli
from distill.embedded.sentiment import opinion, write_sst2
from distill.embedded.similarity import cost, write_stsb
from distill.errors import UserError

COLUMNS = {
    "cola": ["sentence"],
    "sst2": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
    "qqp": ["question1", "question2"],
    "mnli": ["premise", "hypothesis"],
    "qnli": ["question", "sentence"],
    "rte": ["sentence1", "sentence2"],
    "wnli": ["sentence1", "sentence2"],
}
SHARES = {
    "cola": (0.3, 0.7),
    "sst2": (0.45, 0.55),
    "mrpc": (0.32, 0.68),
    "qqp": (0.63, 0.37),
    "mnli": (1 / 3, 1 / 3, 1 / 3),
    "qnli": (0.5, 0.5),
    "rte": (0.5, 0.5),
    "wnli": (0.5, 0.5),
}
# The most that a logistic regression on word counts may score; majority is max(SHARES).
BAG_OF_WORDS_CEILING = {
    "cola": 0.73,
    "sst2": 0.66,
    "mrpc": 0.83,
    "qqp": 0.7,
    "mnli": 0.62,
    "qnli": 0.68,
    "rte": 0.72,
    "wnli": 0.64,
}


@pytest.fixture(scope="module")
def tasks() -> dict:
    return {name: generate(name, 0) for name in EMBEDDED_TASKS}


def _texts(task: str, rows: list[dict]) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in COLUMNS[task]) for row in rows]


def _drawn(writer, label: int, size: int = 400) -> list:
    return [writer(random.Random(seed), label) for seed in range(size)]


def test_all_nine_glue_tasks_and_a_hint_for_a_misspelt_one():
    assert set(EMBEDDED_TASKS) == set(COLUMNS)
    with pytest.raises(UserError, match="did you mean 'sst2'"):
        generate("sst-2", 0)


@pytest.mark.parametrize("task", COLUMNS)
def test_columns_and_splits_are_those_of_glue(tasks, task):
    validations = ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]
    assert list(tasks[task]) == ["train", *validations]
    for rows in tasks[task].values():
        assert all(list(row) == [*COLUMNS[task], "label", "idx"] for row in rows)
        assert [row["idx"] for row in rows] == list(range(len(rows)))
        assert all(
            text and text == text.lower().strip() and "  " not in text for pair in _texts(task, rows) for text in pair
        )
        assert all(isinstance(row["label"], float if task == "stsb" else int) for row in rows)
    assert len(tasks[task]["train"]) == 12000
    assert all(len(tasks[task][split]) == 1000 for split in validations)


@pytest.mark.parametrize("task", COLUMNS)
def test_no_text_stands_twice(tasks, task):
    keys = [tuple(sorted(texts)) for rows in tasks[task].values() for texts in _texts(task, rows)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("task", ["sst2", "stsb", "mnli"])
def test_the_seed_decides_everything(tasks, task):
    assert generate(task, 0) == tasks[task]
    assert generate(task, 1) != tasks[task]


def test_rows_are_the_same_on_every_machine(tasks):
    assert (
        tasks["sst2"]["train"][0]["sentence"] == "this script feels not honest and nobody found the sequel playful ."
    )
    assert tasks["rte"]["validation"][0]["sentence1"] == "the queen was followed by bob ."


@pytest.mark.parametrize("task", SHARES)
def test_label_shares(tasks, task):
    for rows in tasks[task].values():
        counts = Counter(row["label"] for row in rows)
        assert sorted(counts) == list(range(len(SHARES[task])))
        for label, share in enumerate(SHARES[task]):
            assert counts[label] / len(rows) == pytest.approx(share, abs=LABEL_NOISE)


def test_grades_of_stsb_are_real_values_over_the_whole_range(tasks):
    grades = np.array([row["label"] for row in tasks["stsb"]["train"]])
    assert grades.min() >= 0.0
    assert grades.max() == 5.0
    assert len(np.unique(grades)) > 1000
    assert all((np.floor(grades) == whole).mean() > 0.05 for whole in (1, 2, 3, 4))


@pytest.mark.parametrize("task", COLUMNS)
def test_a_bag_of_words_is_left_with_little(tasks, task):
    validation = "validation_matched" if task == "mnli" else "validation"
    train, test = tasks[task]["train"], tasks[task][validation]
    counts = CountVectorizer(token_pattern=r"\S+").fit([" ".join(texts) for texts in _texts(task, train)])

    def features(rows: list[dict]) -> np.ndarray:
        columns = zip(*_texts(task, rows), strict=True)
        return np.hstack([counts.transform(column).toarray() for column in columns]).astype(np.float32)

    labels, wanted = (np.array([row["label"] for row in rows]) for rows in (train, test))
    if task == "stsb":
        found = Ridge(10.0).fit(features(train), labels).predict(features(test))
        assert abs(np.corrcoef(found, wanted)[0, 1]) < 0.15
    else:
        found = LogisticRegression(C=0.3, max_iter=200).fit(features(train), labels).predict(features(test))
        assert (found == wanted).mean() < BAG_OF_WORDS_CEILING[task]


# Sentiment: negators turn the adjective over, the main clause decides.
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
def test_the_clause_after_but_decides_the_review(label):
    mains = [text.split(" , but ")[1] for (text,) in _drawn(write_sst2, label, 2000) if " , but " in text]
    assert len(mains) > 100
    for main in mains:
        is_positive = bool(set(main.split()) & set(POSITIVE))
        assert bool(set(main.split()) & set(NEGATIVE)) != is_positive
        turned = len(NEGATORS.findall(main)) % 2 == 1
        assert (is_positive ^ turned) == (label == 1), main


@pytest.mark.parametrize("label", [0, 1])
def test_the_strong_side_outweighs_the_weak_one(label):
    pattern = re.compile(r"(?:utterly|absolutely|completely|totally) (\w+)")
    strong = [match[1] for (text,) in _drawn(write_sst2, label, 1000) if (match := pattern.search(text))]
    assert len(strong) > 30
    assert set(strong) <= set(POSITIVE if label == 1 else NEGATIVE)


# Acceptability
def test_verbs_agree_with_the_head_across_attractors():
    pattern = re.compile(r"the (?:(?:old|tall|quiet|new) )?(\w+) (.* )?(is|was|seems|are|were|seem) \w+ \.")
    lengths = Counter()
    for label in (0, 1):
        for (text,) in _drawn(write_cola, label, 1500):
            if (match := pattern.fullmatch(text)) is None or "that" in text:
                continue
            head, attractors, verb = match.groups()
            plural_head = head.endswith("s") and head != "actress"
            assert (plural_head == (verb in ("are", "were", "seem"))) == (label == 1), text
            lengths[len((attractors or "").split())] += 1
    assert max(lengths) >= 6


def test_the_negative_polarity_item_needs_no_in_its_own_clause():
    for label in (0, 1):
        texts = [text for (text,) in _drawn(write_cola, label, 800) if " ever " in text]
        assert len(texts) > 20
        assert all(text.startswith("no ") == (label == 1) for text in texts)
        assert all(text.split().count("no") == 1 for text in texts)


def test_the_two_sides_of_a_minimal_pair_differ():
    pairs = zip(_drawn(write_cola, 1), _drawn(write_cola, 0), strict=True)
    assert all(good != bad for good, bad in pairs)


# Paraphrase
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
def test_reports_are_equivalent_exactly_when_they_tell_the_same_event(label):
    for first, second in _drawn(write_mrpc, label):
        assert first != second
        assert (_read_report(first) == _read_report(second)) == (label == 1), (first, second)


@pytest.mark.parametrize("label", [0, 1])
def test_a_question_turned_over_twice_stays_the_same(label):
    opposites = {"bigger": "smaller", "older": "younger", "richer": "poorer", "safer": "less safe"}
    pattern, seen = re.compile(r"is (\w+) ([\w ]+) than (\w+) \?"), 0
    for pair in _drawn(write_qqp, label):
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


# Similarity
def test_costs_of_a_differing_part():
    assert cost("action", (0, 1), (0, 1)) == 0.0
    assert cost("action", (0, 1), (0, 0)) == pytest.approx(0.9)
    assert cost("action", (0, 1), (1, 1)) == pytest.approx(1.8)
    assert cost("place", None, (1, 1)) == cost("place", (1, 1), None) == pytest.approx(0.25)


def test_grades_fall_with_every_part_that_is_redrawn():
    means = [np.mean([grade for _, grade in _drawn(write_stsb, parts, 300)]) for parts in range(6)]
    assert means[0] > 4.8
    assert all(left > right + 0.2 for left, right in pairwise(means))


# Inference
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
def test_implicative_verbs(verb, done, undone):
    seen = Counter()
    for label in (ENTAILMENT, NEUTRAL, CONTRADICTION):
        for premise, hypothesis in _drawn(write_mnli, label, 1500):
            if verb not in premise or premise.split()[-2] != hypothesis.split()[-2]:
                continue
            denied = " did not " in hypothesis
            assert label == (undone if denied else done), (premise, hypothesis)
            seen[denied] += 1
    assert min(seen[True], seen[False]) > 5


def test_rte_is_entailment_against_the_rest():
    for label in (0, 1):
        for premise, hypothesis in _drawn(write_rte, label, 600):
            if " by " in premise and " by " in hypothesis and "not" not in premise + hypothesis:
                agents = {text.split(" by ")[1] for text in (premise, hypothesis)}
                assert label == 1
                assert len(agents) == 2


def test_the_mismatched_genre_has_words_of_its_own():
    matched, mismatched = (set(genre.nouns) | set(genre.verbs) for genre in (FICTION, OFFICE))
    assert not matched & mismatched
    assert set(FICTION.people).isdisjoint(OFFICE.people)


# Reading
@pytest.mark.parametrize("label", [0, 1])
def test_a_question_is_answered_exactly_when_its_own_event_says_so(label):
    for question, text in _drawn(write_qnli, label):
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
def test_pronouns_follow_verb_cue_negation_and_connective(label):
    for text, reading in _drawn(write_wnli, label):
        x, y = re.findall(r"the (\w+)", text)
        tokens = {INFINITIVES.get(token, token) for token in text.split()}
        (verb,) = tokens & set(CUES)
        cue = reading.split()[-2]
        if (tokens & {"not", "cannot"} != set()) != ("although" in tokens):
            cue = ANTONYMS[cue]
        assert cue in CUES[verb]
        right = x if cue == CUES[verb][0] else y
        assert (reading.split()[1] == right) == (label == 1), (text, reading)
