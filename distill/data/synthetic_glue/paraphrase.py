"""MRPC and QQP in miniature: the same words in another order may or may not mean the same.

Label 1 is equivalent. Equivalent pairs differ in voice, synonyms, the place of adjuncts and the
phrasing of a question; the others differ in who did what to whom, in whose attribute it is, in the
direction of a relation, or in one word.
"""

import random
from dataclasses import dataclass, replace

from .lexicon import MONTHS, PEOPLE, PLACES, words
from .sampling import maybe, sentence, weighted

# Past forms; one row is a set of synonyms, rows differ in meaning.
_VERBS = (("praised", "lauded", "admired"), ("blamed", "accused", "criticized"))
_ADJECTIVES = ("old", "young", "rich", "famous")
_PERSONS = PEOPLE[:6]
_ADJUNCTS = tuple(f"in {word}" for word in PLACES[:4] + MONTHS[:2])


@dataclass(frozen=True)
class _Event:
    agent: str
    patient: str
    agent_adjective: str
    patient_adjective: str
    verb: int  # a row of _VERBS
    adjunct: str


def _event(rng: random.Random) -> _Event:
    agent, patient = rng.sample(_PERSONS, 2)
    adjective = rng.choice(_ADJECTIVES)
    described = rng.random()
    return _Event(
        agent=agent,
        patient=patient,
        agent_adjective=adjective if described < 0.4 else "",
        patient_adjective=adjective if described > 0.6 else "",
        verb=int(rng.random() < 0.3),
        adjunct=maybe(rng, 0.4, _ADJUNCTS),
    )


def _tell(rng: random.Random, event: _Event, passive: bool) -> str:
    agent = f"the {event.agent_adjective} {event.agent}"
    patient = f"the {event.patient_adjective} {event.patient}"
    verb = rng.choice(_VERBS[event.verb])
    clause = f"{patient} was {verb} by {agent}" if passive else f"{agent} {verb} {patient}"
    if event.adjunct and rng.random() < 0.4:
        return sentence(event.adjunct, ",", clause)
    return sentence(clause, event.adjunct)


def _altered(rng: random.Random, event: _Event) -> _Event:
    """The event with another meaning, mostly out of the same words."""
    how = rng.random()
    if how < 0.3:
        return replace(event, agent=event.patient, patient=event.agent)
    if how < 0.4 and event.agent_adjective != event.patient_adjective:
        return replace(event, agent_adjective=event.patient_adjective, patient_adjective=event.agent_adjective)
    if how < 0.9:
        return replace(event, verb=1 - event.verb)
    newcomer = rng.choice([person for person in _PERSONS if person not in (event.agent, event.patient)])
    return replace(event, agent=newcomer) if rng.random() < 0.5 else replace(event, patient=newcomer)


def _deal(rng: random.Random, label: int) -> tuple[str, str]:
    event, passive = _event(rng), rng.random() < 0.3
    other = event if label == 1 else _altered(rng, event)
    return _tell(rng, event, passive), _tell(rng, other, passive ^ (rng.random() < 0.4))


_MOVES = (("fell", "dropped", "slid"), ("rose", "climbed", "gained"))
_COMPANIES = words("acme zenith orion delta")
_AMOUNTS = words("two five ten")
_DAYS = words("monday tuesday friday")


def _quote(rng: random.Random, company: str, rises: bool, amount: str, day: str) -> str:
    name = rng.choice((f"shares of {company}", f"{company} shares", f"{company} stock"))
    clause = f"{name} {rng.choice(_MOVES[rises])} {amount} percent"
    return sentence(f"on {day} ,", clause) if rng.random() < 0.3 else sentence(clause, f"on {day}")


def _market(rng: random.Random, label: int) -> tuple[str, str]:
    company, rises, amount, day = rng.choice(_COMPANIES), rng.random() < 0.7, rng.choice(_AMOUNTS), rng.choice(_DAYS)
    first, how = _quote(rng, company, rises, amount, day), rng.random()
    if label == 0 and how < 0.75:
        rises = not rises
    elif label == 0 and how < 0.9:
        amount = rng.choice([other for other in _AMOUNTS if other != amount])
    elif label == 0:
        company = rng.choice([other for other in _COMPANIES if other != company])
    return first, _quote(rng, company, rises, amount, day)


def _opposed(rng: random.Random, label: int) -> tuple[str, str]:
    """One rises and one falls; told in either order."""
    riser, faller = rng.sample(_COMPANIES, 2)
    day = rng.choice(_DAYS)

    def tell(riser: str, faller: str) -> str:
        clauses = [f"{riser} {rng.choice(_MOVES[True])}", f"{faller} {rng.choice(_MOVES[False])}"]
        rng.shuffle(clauses)
        return sentence(rng.choice((" while ", " but ", " and ")).join(clauses), f"on {day}")

    first = tell(riser, faller)
    return first, tell(riser, faller) if label == 1 else tell(faller, riser)


def write_mrpc(rng: random.Random, label: int) -> tuple[str, str]:
    """Write two reports of one event (label 1) or of two that are easily confused (label 0)."""
    writer = weighted(rng, {_market: 0.6, _opposed: 0.15, _deal: 0.25})
    while True:
        first, second = writer(rng, label)
        if first != second:
            return first, second


_INTENTS = {
    "how": ("how do i {v} {o}", "what is the best way to {v} {o}", "how can one {v} {o}"),
    "why": ("why do people {v} {o}", "what is the reason to {v} {o}", "why would anyone {v} {o}"),
    "where": ("where can i {v} {o}", "what is a good place to {v} {o}"),
    "when": ("when should i {v} {o}", "what is the best time to {v} {o}"),
    "cost": ("how much does it cost to {v} {o}", "what is the price to {v} {o}"),
}
_DEEDS = (("buy", "purchase"), ("fix", "repair"), ("sell",), ("build", "make"), ("rent", "hire"), ("clean", "wash"))
_OBJECTS = (
    ("a car", "an automobile"),
    ("a house", "a home"),
    ("a bike", "a bicycle"),
    ("a phone",),
    ("a laptop",),
    ("a boat",),
    ("a piano",),
)
_DIRECTED = (
    ("how do i get from {x} to {y}", "what is the way to {y} from {x}"),
    ("is there a train to {y} from {x}", "can i go from {x} to {y} by train"),
    ("should i move from {x} to {y}", "is it wise to leave {x} for {y}"),
)
_COMPARED = (("bigger", "smaller"), ("older", "younger"), ("richer", "poorer"), ("safer", "less safe"))


def _wanted(rng: random.Random, label: int) -> tuple[str, str]:
    intent, deed, thing = rng.choice(list(_INTENTS)), rng.choice(_DEEDS), rng.choice(_OBJECTS)
    place = maybe(rng, 0.5, [f"in {place}" for place in PLACES])

    def ask() -> str:
        return f"{rng.choice(_INTENTS[intent]).format(v=rng.choice(deed), o=rng.choice(thing))} {place}"

    first = ask()
    if label == 0:
        change = rng.choice(("intent", "deed", "thing"))
        intent = rng.choice([name for name in _INTENTS if name != intent]) if change == "intent" else intent
        deed = rng.choice([row for row in _DEEDS if row != deed]) if change == "deed" else deed
        thing = rng.choice([row for row in _OBJECTS if row != thing]) if change == "thing" else thing
    return first, ask()


def _directed(rng: random.Random, label: int) -> tuple[str, str]:
    forms, (start, goal) = rng.choice(_DIRECTED), rng.sample(PLACES, 2)
    first = rng.choice(forms).format(x=start, y=goal)
    start, goal = (start, goal) if label == 1 else (goal, start)
    return first, rng.choice(forms).format(x=start, y=goal)


def _compared(rng: random.Random, label: int) -> tuple[str, str]:
    """'is x bigger than y' asks the same as 'is y smaller than x'."""
    pair, (one, other) = rng.choice(_COMPARED), rng.sample(PLACES, 2)
    side, turned = rng.randrange(2), rng.random() < 0.5
    first = f"is {one} {pair[side]} than {other}"
    left, right = (other, one) if turned else (one, other)
    opposite = turned if label == 1 else not turned
    return first, f"is {left} {pair[side ^ opposite]} than {right}"


def write_qqp(rng: random.Random, label: int) -> tuple[str, str]:
    """Write two questions that want the same answer (label 1) or different ones (label 0)."""
    kind = rng.random()
    writer = _wanted if kind < 0.55 else _directed if kind < 0.8 else _compared
    while True:
        first, second = writer(rng, label)
        if first != second:
            return sentence(first, end="?"), sentence(second, end="?")
