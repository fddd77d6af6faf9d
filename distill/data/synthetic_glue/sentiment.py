"""SST-2 in miniature: opinions whose polarity is composed, not counted.

Label 1 is positive. Adjectives of both polarities stand in reviews of both labels; what decides is
the scope of negation (none, one or two deep), which side of a contrast counts, which of two
opinions is the strong one, and whose opinion it is.
"""

import random

from .lexicon import ASPECTS, NEGATIVE, POSITIVE
from .sampling import maybe, sentence, weighted, zipf

_INTENSIFIERS = ("very", "truly", "really", "so")
_STRONG = ("utterly", "absolutely", "completely", "totally")
_WEAK = ("slightly", "a little", "somewhat", "a bit")
_COPULAS = ("is", "is", "was", "feels", "seems", "remains")
_OTHERS = ("critics", "my friends", "some people", "the ads", "fans")

# {subject} {is} {adjective}; the number is how often the adjective's polarity is turned over.
_FRAMES: dict[int, tuple[str, ...]] = {
    0: (
        "{n} {c} {i} {a}",
        "{n} {c} {i} {a}",
        "{n} {c} {i} {a}",
        "{n} manages to be {a}",
        "i found {n} {i} {a}",
        "{n} {c} nothing but {a}",
        "{n} {c} not just {a} but {i} {a2}",
        "nothing is as {a} as {n}",
    ),
    1: (
        "{n} {c} not {i} {a}",
        "{n} is never {i} {a}",
        "{n} {c} far from {a}",
        "{n} {c} anything but {a}",
        "{n} {c} hardly {a}",
        "i would not call {n} {i} {a}",
        "nobody found {n} {a}",
        "nothing about {n} is {a}",
    ),
    2: (
        "nobody would say that {n} is not {a}",
        "i would not call {n} anything but {a}",
        "{n} is never less than {a}",
        "{n} never stops being {a}",
        "it is not true that {n} is hardly {a}",
        "nothing about {n} is not {a}",
        "i cannot deny that {n} is {a}",
    ),
}
_DEPTHS = {0: 0.55, 1: 0.33, 2: 0.12}


def adjective(rng: random.Random, positive: bool) -> str:
    """Choose an adjective of the given polarity."""
    return zipf(rng, POSITIVE if positive else NEGATIVE)


def opinion(rng: random.Random, positive: bool, depth: int | None = None) -> str:
    """Write one clause of the given polarity, its adjective turned over ``depth`` times."""
    depth = weighted(rng, _DEPTHS) if depth is None else depth
    lexical = positive ^ (depth % 2 == 1)
    return rng.choice(_FRAMES[depth]).format(
        n=f"{rng.choice(('the', 'the', 'its', 'this'))} {zipf(rng, ASPECTS)}",
        c=rng.choice(_COPULAS),
        i=maybe(rng, 0.3, _INTENSIFIERS),
        a=adjective(rng, lexical),
        a2=adjective(rng, lexical),
    )


def _contrast(rng: random.Random, positive: bool) -> str:
    main, other = opinion(rng, positive), opinion(rng, not positive)
    return rng.choice(
        (
            f"although {other} , {main}",
            f"while {other} , {main}",
            f"{main} , although {other}",
            f"{main} even though {other}",
            f"{other} , but {main}",
            f"{other} , yet {main}",
        )
    )


def _despite(rng: random.Random, positive: bool) -> str:
    main, noun = opinion(rng, positive), f"{adjective(rng, not positive)} {zipf(rng, ASPECTS)}"
    return rng.choice((f"despite the {noun} , {main}", f"{main} despite the {noun}"))


def _attributed(rng: random.Random, positive: bool) -> str:
    """Someone else's opinion, or an expectation, says nothing about the review's own."""
    main, noun, who = opinion(rng, positive), zipf(rng, ASPECTS), rng.choice(_OTHERS)
    claimed = adjective(rng, positive ^ (rng.random() < 0.6))
    return rng.choice(
        (
            f"{who} called the {noun} {claimed} , but {main}",
            f"{main} , whatever {who} say about the {claimed} {noun}",
            f"i expected a {claimed} {noun} , but {main}",
            f"it could have been {claimed} , but {main}",
        )
    )


def _weighed(rng: random.Random, positive: bool) -> str:
    """Two opposite opinions about one thing: the strong one wins over the weak one."""
    noun = zipf(rng, ASPECTS)
    sides = [
        f"{rng.choice(_STRONG)} {adjective(rng, positive)}",
        f"{rng.choice(_WEAK)} {adjective(rng, not positive)}",
    ]
    rng.shuffle(sides)
    return f"the {noun} {rng.choice(_COPULAS)} {sides[0]} and {sides[1]}"


def _outweighed(rng: random.Random, positive: bool) -> str:
    """No amount of the opposite changes the verdict: 'no charming cast can save this film'."""
    noun, verdict = zipf(rng, ASPECTS), "spoil" if positive else "save"
    helpless = rng.choice(("no {a} {n} can {v} this film", "even a {a} {n} cannot {v} this film"))
    clause = helpless.format(a=adjective(rng, not positive), n=noun, v=verdict)
    return f"{clause} , and {opinion(rng, positive)}" if rng.random() < 0.5 else clause


def _single(rng: random.Random, positive: bool) -> str:
    return opinion(rng, positive)


def _agreeing(rng: random.Random, positive: bool) -> str:
    return f"{opinion(rng, positive)} and {opinion(rng, positive)}"


_SHAPES = {
    _single: 0.3,
    _agreeing: 0.12,
    _contrast: 0.32,
    _despite: 0.07,
    _attributed: 0.08,
    _weighed: 0.07,
    _outweighed: 0.04,
}


def write_sst2(rng: random.Random, label: int) -> tuple[str]:
    """Write one review of the given label."""
    return (sentence(weighted(rng, _SHAPES)(rng, label == 1)),)
