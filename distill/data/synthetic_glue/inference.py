"""RTE and MNLI in miniature: inference whose label is computed, not listed.

Three sources, each exact:

* quantifiers (every, some, no, not every) over nouns and verb phrases ordered by hypernyms and
  modifiers. A position is upward or downward monotone: 'every' is down in its noun and up in its
  verb, 'some' up in both, 'no' down in both, 'not every' up in its noun and down in its verb.
  Nouns are taken to be non-empty, so 'every' entails 'some' and 'no' entails 'not every'.
* implicative and factive verbs, which fix the truth of their complement under either polarity
  (L. Karttunen, 'Simple and phrasal implicatives', 2012): 'did not forget to' entails doing it.
* who did what to whom, across voice and negation.
"""

import random
from dataclasses import dataclass

from .sampling import maybe, sentence, weighted

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2


@dataclass(frozen=True)
class Genre:
    """The content words of a genre: noun -> its hyponyms, verb -> more specific verbs, people, deeds."""

    nouns: dict[str, tuple[str, ...]]
    verbs: dict[str, tuple[str, ...]]
    adjectives: tuple[str, ...]
    adverbials: tuple[str, ...]
    people: tuple[str, ...]
    actions: dict[str, str]  # base -> past and participle, person to person
    deeds: dict[str, str]  # base -> past, with their object in {}
    objects: tuple[str, ...]


FICTION = Genre(
    nouns={
        "animal": ("dog", "cat", "horse", "bird"),
        "child": ("boy", "girl"),
        "artist": ("singer", "painter", "dancer"),
    },
    verbs={"moved": ("ran", "walked", "danced"), "spoke": ("shouted", "whispered")},
    adjectives=("old", "small", "happy", "hungry"),
    adverbials=("slowly", "in the park", "at night", "again"),
    people=("anna", "bob", "carl", "dora", "the king", "the queen"),
    actions={"help": "helped", "follow": "followed", "praise": "praised", "call": "called"},
    deeds={"open": "opened", "paint": "painted", "close": "closed", "find": "found"},
    objects=("the door", "the box", "the gate", "the boat"),
)
OFFICE = Genre(
    nouns={"employee": ("manager", "clerk", "engineer"), "visitor": ("client", "tourist")},
    verbs={"worked": ("typed", "called"), "traveled": ("drove", "walked")},
    adjectives=("new", "senior", "busy", "old"),
    adverbials=("in the office", "on monday", "again", "slowly"),
    people=("the director", "the clerk", "emma", "frank"),
    actions={"hire": "hired", "call": "called", "thank": "thanked", "help": "helped"},
    deeds={"sign": "signed", "open": "opened", "print": "printed", "find": "found"},
    objects=("the letter", "the report", "the box", "the contract"),
)

# The quantifiers' surface forms, and the quantifier that denies each.
QUANTIFIERS = {
    "every": ("every", "each"),
    "some": ("some", "at least one"),
    "no": ("no", "not one"),
    "not every": ("not every",),
}
DENIAL = {"every": "not every", "not every": "every", "some": "no", "no": "some"}


@dataclass(frozen=True)
class Term:
    """A noun or a verb with at most one modifier; ``general`` is its hypernym, or the word itself."""

    word: str
    general: str
    modifier: str = ""


def includes(wide: Term, narrow: Term) -> bool:
    """Whether everything that ``narrow`` names is also named by ``wide``."""
    by_word = wide.word in (narrow.word, narrow.general)
    return by_word and wide.modifier in ("", narrow.modifier)


def quantified_entails(premise: tuple[str, Term, Term], hypothesis: tuple[str, Term, Term]) -> bool:
    """Whether 'Q noun verb' entails another, by the monotonicity of Q and non-empty nouns."""
    (given, noun, verb), (asked, other_noun, other_verb) = premise, hypothesis
    comparable = includes(noun, other_noun) or includes(other_noun, noun)
    verb_up, verb_down = includes(other_verb, verb), includes(verb, other_verb)
    match given, asked:
        case "every", "every":
            return includes(noun, other_noun) and verb_up
        case "every", "some":
            return comparable and verb_up
        case "some", "some":
            return includes(other_noun, noun) and verb_up
        case "no", "no":
            return includes(noun, other_noun) and verb_down
        case "no", "not every":
            return comparable and verb_down
        case "not every", "not every":
            return includes(other_noun, noun) and verb_down
    return False


def quantified_label(premise: tuple[str, Term, Term], hypothesis: tuple[str, Term, Term]) -> int:
    """Entailment, contradiction (the premise entails the hypothesis' denial) or neutral."""
    if quantified_entails(premise, hypothesis):
        return ENTAILMENT
    asked, noun, verb = hypothesis
    return CONTRADICTION if quantified_entails(premise, (DENIAL[asked], noun, verb)) else NEUTRAL


def _term(rng: random.Random, tree: dict[str, tuple[str, ...]], modifiers: tuple[str, ...]) -> Term:
    general = rng.choice(list(tree))
    word = general if rng.random() < 0.35 else rng.choice(tree[general])
    return Term(word, general, maybe(rng, 0.35, modifiers))


def _related(rng: random.Random, term: Term, tree: dict[str, tuple[str, ...]], modifiers: tuple[str, ...]) -> Term:
    """The same term, a wider one, a narrower one or, seldom, any."""
    kind = rng.random()
    if kind < 0.4:
        return term
    if kind < 0.6:
        return (
            Term(term.general, term.general, term.modifier)
            if term.word != term.general
            else Term(term.word, term.general)
        )
    if kind < 0.85:
        if term.word == term.general and rng.random() < 0.6:
            return Term(rng.choice(tree[term.general]), term.general, term.modifier)
        return Term(term.word, term.general, term.modifier or rng.choice(modifiers))
    return _term(rng, tree, modifiers)


def _tell(rng: random.Random, quantifier: str, noun: Term, verb: Term) -> str:
    return sentence(rng.choice(QUANTIFIERS[quantifier]), noun.modifier, noun.word, verb.word, verb.modifier)


def _quantified(rng: random.Random, genre: Genre) -> tuple[str, str, int]:
    noun, verb = _term(rng, genre.nouns, genre.adjectives), _term(rng, genre.verbs, genre.adverbials)
    given, asked = rng.choice(list(QUANTIFIERS)), rng.choice(list(QUANTIFIERS))
    other_noun = _related(rng, noun, genre.nouns, genre.adjectives)
    other_verb = _related(rng, verb, genre.verbs, genre.adverbials) if rng.random() < 0.6 else verb
    label = quantified_label((given, noun, verb), (asked, other_noun, other_verb))
    return _tell(rng, given, noun, verb), _tell(rng, asked, other_noun, other_verb), label


# (affirmative, negated, truth of the complement when affirmative, when negated; None = left open).
IMPLICATIVES = (
    ("managed to {base}", "did not manage to {base}", True, False),
    ("remembered to {base}", "did not remember to {base}", True, False),
    ("failed to {base}", "did not fail to {base}", False, True),
    ("forgot to {base}", "did not forget to {base}", False, True),
    ("refused to {base}", "did not refuse to {base}", False, None),
    ("was forced to {base}", "was not forced to {base}", True, None),
    ("wanted to {base}", "did not want to {base}", None, None),
    ("planned to {base}", "did not plan to {base}", None, None),
)
_CLAUSES = (
    ("knew that {other} {past}", "did not know that {other} {past}", True, True),
    ("said that {other} {past}", "did not say that {other} {past}", None, None),
)


def _implied(rng: random.Random, genre: Genre) -> tuple[str, str, int]:
    who, other = rng.sample(genre.people, 2)
    base, past = rng.choice(list(genre.deeds.items()))
    thing = rng.choice(genre.objects)
    embeds_clause = rng.random() < 0.25
    affirmative, negated, when_true, when_negated = rng.choice(_CLAUSES if embeds_clause else IMPLICATIVES)
    negative, asked_negative = rng.random() < 0.5, rng.random() < 0.5
    frame, truth = (negated, when_negated) if negative else (affirmative, when_true)
    doer = other if embeds_clause else who
    premise = sentence(who, frame.format(base=f"{base} {thing}", other=other, past=f"{past} {thing}"))
    if rng.random() < 0.1:
        thing, truth = rng.choice([item for item in genre.objects if item != thing]), None
    hypothesis = sentence(doer, f"did not {base} {thing}" if asked_negative else f"{past} {thing}")
    if truth is None:
        return premise, hypothesis, NEUTRAL
    return premise, hypothesis, ENTAILMENT if truth != asked_negative else CONTRADICTION


def _voice(base: str, past: str, agent: str, patient: str, passive: bool, negative: bool) -> str:
    if passive:
        return sentence(patient, "was", "not" if negative else "", past, "by", agent)
    return sentence(agent, f"did not {base}" if negative else past, patient)


def _roles(rng: random.Random, genre: Genre) -> tuple[str, str, int]:
    agent, patient = rng.sample(genre.people, 2)
    base, past = rng.choice(list(genre.actions.items()))
    negative, asked_negative = rng.random() < 0.3, rng.random() < 0.3
    premise = _voice(base, past, agent, patient, rng.random() < 0.5, negative)
    swapped = rng.random() < 0.4
    roles = (patient, agent) if swapped else (agent, patient)
    hypothesis = _voice(base, past, *roles, rng.random() < 0.5, asked_negative)
    if swapped:
        return premise, hypothesis, NEUTRAL
    return premise, hypothesis, ENTAILMENT if negative == asked_negative else CONTRADICTION


_MNLI_SOURCES = {_quantified: 0.4, _implied: 0.35, _roles: 0.25}
_RTE_SOURCES = {_quantified: 0.6, _implied: 0.2, _roles: 0.2}


def write_mnli(rng: random.Random, label: int, genre: Genre = FICTION) -> tuple[str, str]:
    """Write a premise and a hypothesis: 0 entailment, 1 neutral, 2 contradiction."""
    source = weighted(rng, _MNLI_SOURCES)
    while True:
        premise, hypothesis, found = source(rng, genre)
        if found == label and premise != hypothesis:
            return premise, hypothesis


def write_mnli_mismatched(rng: random.Random, label: int) -> tuple[str, str]:
    """As ``write_mnli``, in a genre with words that its train split has not."""
    return write_mnli(rng, label, OFFICE)


def write_rte(rng: random.Random, label: int) -> tuple[str, str]:
    """Write two sentences: 0 entailment, 1 not (neutral or contradiction, as often each)."""
    source = weighted(rng, _RTE_SOURCES)
    wanted = ENTAILMENT if label == 0 else rng.choice((NEUTRAL, CONTRADICTION))
    while True:
        premise, hypothesis, found = source(rng, FICTION)
        if found == wanted and premise != hypothesis:
            return premise, hypothesis
