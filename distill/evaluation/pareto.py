"""The Pareto front of students: which of them no other one beats on both axes."""

from collections.abc import Mapping


def pareto_front(places: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names that no other one beats, lowest x first.

    Args:
        places: name to (x, y), where more is better on both axes, such as speedup and retention.
    """
    return [
        name
        for name, (x, y) in sorted(places.items(), key=lambda item: item[1])
        if not any(a >= x and b >= y and (a > x or b > y) for a, b in places.values())
    ]
