"""QNLI and WNLI in miniature: does the sentence answer the question; whom does the pronoun mean.

QNLI: 0 is entailment, the sentence holds the answer. One or two events with some of agent, place and
time; a question about one of them may find its answer missing, in the other event, or denied.

WNLI: 1 is entailment, the hypothesis puts the right noun for the pronoun. The same cue word points
to the one or to the other noun, turned over by negation, by 'although', and by the verb.
"""

import random
from dataclasses import dataclass, replace

from .lexicon import GOODS, MAKING, MONTHS, NAMES, PEOPLE, PLACES, words
from .sampling import sentence, weighted


@dataclass(frozen=True)
class Event:
    """Somebody did something to a thing; who, where and when may be left unsaid (empty)."""

    agent: str
    base: str
    thing: str
    place: str
    month: str
    denied: bool = False

    def tell(self, places_last: bool) -> str:
        """The event as a clause: active, or passive where the agent is unsaid."""
        past = MAKING[self.base]
        place, month = f"in {self.place}" if self.place else "", f"in {self.month}" if self.month else ""
        adjuncts = f"{month} {place}" if places_last else f"{place} {month}"
        if not self.agent:
            return f"the {self.thing} was {'not ' if self.denied else ''}{past} {adjuncts}"
        return f"{self.agent} {f'did not {self.base}' if self.denied else past} the {self.thing} {adjuncts}"


_ASKED = ("who", "where", "when")


def _slot(event: Event, asked: str) -> str:
    return {"who": event.agent, "where": event.place, "when": event.month}[asked]


def answers(event: Event, asked: str) -> bool:
    """Whether the event states what is asked about it."""
    return bool(_slot(event, asked)) and not event.denied


def _event(rng: random.Random, agent: str, base: str, thing: str, asked: str, holds: bool) -> Event:
    """An event that states the asked part or not, and each of the others as often as not."""
    said = {part: rng.random() < 0.5 for part in _ASKED}
    said[asked] = holds
    return Event(
        agent if said["who"] else "",
        base,
        thing,
        rng.choice(PLACES[:5]) if said["where"] else "",
        rng.choice(MONTHS[:5]) if said["when"] else "",
    )


def _question(event: Event, asked: str) -> str:
    past = MAKING[event.base]
    if asked == "who":
        return f"who {past} the {event.thing}"
    if event.agent:
        return f"{asked} did {event.agent} {event.base} the {event.thing}"
    return f"{asked} was the {event.thing} {past}"


def write_qnli(rng: random.Random, label: int) -> tuple[str, str]:
    """Write a question and a sentence that answers it (label 0) or does not (label 1)."""
    asked = rng.choice(_ASKED)
    (one, two), (base, other_base), (thing, other_thing) = (
        rng.sample(choices, 2) for choices in (NAMES[:8], list(MAKING)[:6], GOODS[:6])
    )
    denied = label == 1 and rng.random() < 0.2
    event = _event(rng, one, base, thing, asked, holds=label == 0 or denied)
    event = replace(event, denied=denied)
    places_last, question = rng.random() < 0.5, _question(event, asked)
    clauses = [event.tell(places_last)]
    if rng.random() < 0.7:
        holds = rng.random() < (0.25 if label == 0 or denied else 0.75)
        other = _event(rng, two, other_base, other_thing, asked, holds)
        clauses.append(replace(other, denied=label == 0 and rng.random() < 0.2).tell(places_last))
        rng.shuffle(clauses)
    return sentence(question, end="?"), sentence(" and ".join(clauses))


@dataclass(frozen=True)
class Schema:
    """A frame about {x} and {y}; ``x_cues`` explain it through x, ``y_cues`` through y."""

    frames: tuple[str, str]  # true, denied
    x_cues: tuple[str, ...]
    y_cues: tuple[str, ...]
    x_nouns: tuple[str, ...]
    y_nouns: tuple[str, ...]
    pronoun: str


_CONTENTS, _CONTAINERS = words("trophy book ball doll lamp"), words("box suitcase drawer bag chest")
_TOOLS, _TARGETS, _FUGITIVES = (
    words("hammer stone rock axe"),
    words("window mirror vase door"),
    words("thief spy thug"),
)
# Under denial the cues change sides: it fits because x is small, it does not because y is small.
_SCHEMAS = {
    Schema(("{x} fits in {y}", "{x} does not fit in {y}"), ("small",), ("big",), _CONTENTS, _CONTAINERS, "it"): 0.3,
    Schema(("{x} can hold {y}", "{x} cannot hold {y}"), ("big",), ("small",), _CONTAINERS, _CONTENTS, "it"): 0.1,
    Schema(("{x} broke {y}", "{x} did not break {y}"), ("hard",), ("fragile",), _TOOLS, _TARGETS, "it"): 0.25,
    Schema(("{x} caught {y}", "{x} could not catch {y}"), ("fast",), ("slow",), PEOPLE[:4], _FUGITIVES, "he"): 0.25,
    Schema(("{x} beat {y}", "{x} could not beat {y}"), ("skilled",), ("clumsy",), PEOPLE[:4], PEOPLE[:4], "she"): 0.1,
}
_ANTONYMS = (("small", "big"), ("hard", "soft"), ("fragile", "sturdy"), ("fast", "slow"), ("skilled", "clumsy"))
_OPPOSITES = dict(_ANTONYMS) | {second: first for first, second in _ANTONYMS}
_OPENINGS = ("", "in fact", "as you see ,", "we know that", *(f"{name} says that" for name in NAMES[:8]))


def write_wnli(rng: random.Random, label: int) -> tuple[str, str]:
    """Write a sentence with a pronoun and a reading of it, right (label 1) or wrong (label 0)."""
    schema, denied, concessive = weighted(rng, _SCHEMAS), rng.random() < 0.3, rng.random() < 0.1
    x = rng.choice(schema.x_nouns)
    y = rng.choice([noun for noun in schema.y_nouns if noun != x])
    x, y = f"the {x}", f"the {y}"
    through_x = rng.random() < 0.6
    cue = rng.choice(schema.x_cues if through_x else schema.y_cues)
    cue = _OPPOSITES[cue] if denied != concessive else cue
    frame = schema.frames[denied].format(x=x, y=y)
    degree = rng.choice(("", "very", "rather", "so"))
    reason = f"{'although' if concessive else 'because'} {schema.pronoun} is {degree} {cue}"
    meant, other = (x, y) if through_x else (y, x)
    clauses = (frame, reason) if rng.random() < 0.7 else (reason, ",", frame)
    told = sentence(rng.choice(_OPENINGS), *clauses)
    return told, sentence(meant if label == 1 else other, "is", cue)
