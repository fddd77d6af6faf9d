"""How a cost grows with the length of a text: the exponent of a power law through measured points."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def growth_exponent(points: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the slope of the logarithm of the cost of one token over the logarithm of the length, by least squares.

    0 is a cost per token that does not depend on the length, as of linear attention, 1 one that grows with it, as of
    softmax attention in long texts.

    Args:
        points: with ``length``, ``batch_size`` and the cost of a whole step under ``key``.

    Returns:
        None with fewer than two measured points.
    """
    known = [(each["length"], each[key] / (each["length"] * each["batch_size"])) for each in points if each[key]]
    if len({length for length, _ in known}) < 2:
        return None
    lengths, costs = np.log(np.array(known)).T
    return float(np.polyfit(lengths, costs, 1)[0])
