"""STS-B in miniature: two scenes graded by how much of what matters they share.

The grade is 5 minus what each differing part costs: the action most, a detail least, half of it for
a near relative (another animal, another instrument) or for a part that only one side mentions, and
nothing for a synonym. The annotators' spread is added.
"""

import random

from .sampling import sentence

# Each family holds near relatives; each relative is its set of synonyms.
_AGENTS = ((("man", "guy"), ("woman",)), (("dog",), ("cat",)))
_ACTIONS = ((("watching", "observing"), ("filming",)), (("carrying",), ("pushing",)))
_OBJECTS = ((("rock",), ("box",)), (("bird",), ("sheep",)))
_PLACES = ((("forest", "woods"), ("field",)), (("street",), ("yard",)))
_DETAILS = ((("small",), ("large",)), (("calm",), ("nervous",)))

_SLOTS = {"agent": _AGENTS, "action": _ACTIONS, "object": _OBJECTS, "place": _PLACES, "detail": _DETAILS}
_COSTS = {"agent": 1.4, "action": 1.8, "object": 1.0, "place": 0.5, "detail": 0.3}
_SPREAD = 0.2  # standard deviation of the annotators' mean, in grades

Meaning = tuple[int, int] | None  # family and relative, None where the part is not mentioned


def _draw(rng: random.Random, slot: str) -> Meaning:
    if slot in ("place", "detail") and rng.random() < 0.4:
        return None
    family = int(rng.random() < 0.3)
    return family, int(rng.random() < 0.3)


def _tell(rng: random.Random, scene: dict[str, Meaning]) -> str:
    word = {slot: rng.choice(_SLOTS[slot][part[0]][part[1]]) for slot, part in scene.items() if part is not None}
    clause = f"a {word.get('detail', '')} {word['agent']} is {word['action']} a {word['object']}"
    if "place" not in word:
        return sentence(clause)
    return (
        sentence(f"in the {word['place']}", ",", clause)
        if rng.random() < 0.3
        else sentence(clause, f"in the {word['place']}")
    )


def cost(slot: str, first: Meaning, second: Meaning) -> float:
    """What a differing part takes off the grade: all of its cost, or half for relatives and one-sided mentions."""
    if first == second:
        return 0.0
    near = first is None or second is None or first[0] == second[0]
    return _COSTS[slot] * (0.5 if near else 1.0)


def write_stsb(rng: random.Random, num_redrawn: int) -> tuple[tuple[str, str], float]:
    """Write two scenes that differ in at most ``num_redrawn`` parts (0-5), and their grade from 0 to 5."""
    first = {slot: _draw(rng, slot) for slot in _SLOTS}
    redrawn = rng.sample(list(_SLOTS), num_redrawn)
    second = {slot: _draw(rng, slot) if slot in redrawn else part for slot, part in first.items()}
    grade = 5.0 - sum(cost(slot, first[slot], second[slot]) for slot in _SLOTS) + rng.gauss(0.0, _SPREAD)
    return (_tell(rng, first), _tell(rng, second)), round(min(5.0, max(0.0, grade)), 3)
