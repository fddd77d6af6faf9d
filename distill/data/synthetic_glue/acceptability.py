"""CoLA in miniature: minimal pairs of an acceptable and an unacceptable sentence.

Label 1 is acceptable. Agreement is held across one or two attractors and relative clauses; a
negative polarity item needs its licensor in the right place; a reflexive its antecedent; a verb its
object; an auxiliary its form; a question its gap; words their order.
"""

import random

from .lexicon import FEMALE, INTRANSITIVE, MALE, PEOPLE, THINGS, TRANSITIVE
from .sampling import maybe, sentence, weighted

Pair = tuple[str, str]  # acceptable, unacceptable

_PREPOSITIONS = ("near", "behind", "beside", "with")
_ADJECTIVES = ("old", "tall", "quiet", "new")
_PREDICATES = ("old", "lost", "famous", "here", "gone")
_PERSONS = PEOPLE[:6] + MALE + FEMALE


def _noun(rng: random.Random, nouns: tuple[str, ...], plural: bool | None = None) -> tuple[str, bool]:
    """A definite noun phrase and whether it is plural."""
    plural = rng.random() < 0.5 if plural is None else plural
    noun = rng.choice(nouns)
    number = ("actresses" if noun == "actress" else f"{noun}s") if plural else noun
    return f"the {maybe(rng, 0.2, _ADJECTIVES)} {number}", plural


def _attractors(rng: random.Random, nouns: tuple[str, ...]) -> str:
    count = rng.choice((0, 1, 1, 2))
    return " ".join(f"{rng.choice(_PREPOSITIONS)} {_noun(rng, nouns)[0]}" for _ in range(count))


def _agreement(rng: random.Random) -> Pair:
    nouns = rng.choice((THINGS, _PERSONS))
    subject, plural = _noun(rng, nouns)
    attractors, predicate = _attractors(rng, nouns), rng.choice(_PREDICATES)
    verbs = rng.choice((("is", "are"), ("was", "were"), ("seems", "seem")))
    good, bad = (f"{subject} {attractors} {verbs[number]} {predicate}" for number in (plural, not plural))
    return good, bad


def _relative_agreement(rng: random.Random) -> Pair:
    """'the boy that the girls admire smiles': two verbs, two subjects, one of the verbs wrong."""
    (outer, outer_plural), (inner, inner_plural) = _noun(rng, _PERSONS), _noun(rng, _PERSONS)
    inside, outside = rng.choice(list(TRANSITIVE)), rng.choice(list(INTRANSITIVE))

    def build(inner_number: bool, outer_number: bool) -> str:
        return f"{outer} that {inner} {inside}{'' if inner_number else 's'} {outside}{'' if outer_number else 's'}"

    wrong = rng.random() < 0.5
    return build(inner_plural, outer_plural), build(inner_plural ^ wrong, outer_plural ^ (not wrong))


def _reflexive(rng: random.Random) -> Pair:
    forms = {"himself": MALE, "herself": FEMALE, "themselves": MALE + FEMALE}
    right = rng.choice(list(forms))
    subject, _ = _noun(rng, forms[right], plural=right == "themselves")
    start = f"{subject} {_attractors(rng, MALE + FEMALE)} {rng.choice(list(TRANSITIVE.values()))}"
    return f"{start} {right}", f"{start} {rng.choice([form for form in forms if form != right])}"


def _polarity_item(rng: random.Random) -> Pair:
    """'ever' stands in the scope of 'no': the clause's own subject, not the one of a relative clause."""
    first, second = rng.sample(_PERSONS, 2)
    verb, end = rng.choice(list(TRANSITIVE)), rng.choice(list(INTRANSITIVE.values()))
    good, bad = (
        f"{one} {first} that {other} {second} {verb}s has ever {end}" for one, other in (("no", "the"), ("the", "no"))
    )
    return good, bad


def _arguments(rng: random.Random) -> Pair:
    subject, other = _noun(rng, _PERSONS)[0], _noun(rng, _PERSONS)[0]
    with_object, without = rng.choice(list(TRANSITIVE.values())), rng.choice(list(INTRANSITIVE.values()))
    if rng.random() < 0.5:
        return f"{subject} {with_object} {other}", f"{subject} {without} {other}"
    end = rng.choice(("", "again", "yesterday"))
    return f"{subject} {without} {end}", f"{subject} {with_object} {end}"


def _auxiliary(rng: random.Random) -> Pair:
    subject, plural = _noun(rng, _PERSONS)
    base, past = rng.choice(list(TRANSITIVE.items()))
    middle, other = maybe(rng, 0.5, ("never", "always", "probably")), _noun(rng, _PERSONS)[0]
    if rng.random() < 0.5:
        have = "have" if plural else "has"
        return f"{subject} {have} {middle} {past} {other}", f"{subject} {have} {middle} {base} {other}"
    return f"{subject} will {middle} {base} {other}", f"{subject} will {middle} {past} {other}"


def _gap(rng: random.Random) -> Pair:
    subject, other = _noun(rng, _PERSONS)[0], _noun(rng, _PERSONS)[0]
    verb, adverb = rng.choice(list(TRANSITIVE)), maybe(rng, 0.5, ("again", "yesterday"))
    if rng.random() < 0.5:
        return f"who did {subject} {verb} {adverb}", f"who did {subject} {verb} {other} {adverb}"
    return f"why did {subject} {verb} {other} {adverb}", f"why did {subject} {verb} {adverb}"


def _order(rng: random.Random) -> Pair:
    subject, other = _noun(rng, _PERSONS)[0], _noun(rng, _PERSONS)[0]
    parts = [*subject.split(), rng.choice(list(TRANSITIVE.values())), *other.split()]
    place = rng.choice([index for index in range(len(parts) - 1) if "the" in parts[index : index + 2]])
    swapped = [*parts[:place], parts[place + 1], parts[place], *parts[place + 2 :]]
    return " ".join(parts), " ".join(swapped)


_PHENOMENA = {
    _agreement: 0.26,
    _relative_agreement: 0.12,
    _reflexive: 0.12,
    _polarity_item: 0.1,
    _arguments: 0.1,
    _auxiliary: 0.1,
    _gap: 0.1,
    _order: 0.1,
}


def write_cola(rng: random.Random, label: int) -> tuple[str]:
    """Write one sentence: the acceptable side of a minimal pair for label 1, else the other."""
    good, bad = weighted(rng, _PHENOMENA)(rng)
    return (sentence(good if label == 1 else bad),)
