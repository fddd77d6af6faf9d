"""Which shapes of a student are worth a short run: fast enough, and none has less of everything than another."""

import math
from collections.abc import Callable

import numpy as np

from distill.benchmark.latency_table import LatencyTable
from distill.config.shape_search import StudentShape, TriedShape

FINALISTS = 4
MEASUREMENTS = 3
"""Of one depth, until a shape is found that is fast enough."""
LOOSE = 1.5
"""A shape so many times as fast as was asked for is too small, where others are nearer."""

ATTEMPTS = 3
"""At one shape's speed, while its interval contains what was asked for."""

Speed = tuple[float, float, float]
"""Speedup over the teacher, with its interval."""
Measure = Callable[[StudentShape], Speed]
"""Of a shape."""


def weights_per_layer(shape: StudentShape) -> int:
    """Return about how many weights a layer has, of attention and feed-forward."""
    return 4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size


def is_within(shape: StudentShape, other: StudentShape) -> bool:
    """Tell whether a shape has no more of anything than another one."""
    sizes = ("num_layers", "hidden_size", "intermediate_size", "num_heads")
    return all(getattr(shape, name) <= getattr(other, name) for name in sizes)


def fitting_shapes(table: LatencyTable, target: float, depth: int) -> list[tuple[StudentShape, float]]:
    """Return the shapes of a depth that are predicted to be fast enough, those with most weights first."""
    fitting = [(shape, speed) for shape, speed in table.shapes if shape.num_layers == depth and speed >= target]
    return sorted(fitting, key=lambda each: -weights_per_layer(each[0]))


def promising_depths(table: LatencyTable, target: float, count: int = FINALISTS) -> list[int]:
    """Return depths at which the largest fitting shape is worth a trial, at most ``count``, evenly spread.

    Left out are a depth whose largest shape is far faster than was asked for, while others are nearer, and one whose
    largest shape has no more of anything than that of another depth.
    """
    fitting = (fitting_shapes(table, target, depth) for depth in range(1, table.num_layers + 1))
    largest = [shapes[0] for shapes in fitting if shapes]
    near = [each for each in largest if each[1] <= LOOSE * target] or largest
    depths = [
        shape.num_layers
        for shape, _ in near
        if not any(other != shape and is_within(shape, other) for other, _ in near)
    ]
    places = np.linspace(0, len(depths) - 1, min(count, len(depths))).round().astype(int)
    return [depths[place] for place in places]


def try_speeds(table: LatencyTable, target: float, measure: Measure, count: int = FINALISTS) -> list[TriedShape]:
    """Measure shapes until every promising depth has one that is fast enough, and return all that were measured.

    What a measurement says of the prediction goes into the next one of the same depth. Where no shape is predicted to
    be fast enough, the fastest is measured.
    """
    tried = []
    for depth in promising_depths(table, target, count):
        off = 1.0
        left = fitting_shapes(table, target, depth)
        for _ in range(MEASUREMENTS):
            left = [(shape, speed) for shape, speed in left if off * speed >= target]
            if not left:
                break
            (shape, predicted), *left = left
            tried.append(TriedShape(shape, *measure(shape)))
            if tried[-1].speedup >= target:
                break
            off = tried[-1].speedup / predicted
    if not tried:
        fastest, _ = max(table.shapes, key=lambda each: each[1])
        tried = [TriedShape(fastest, *measure(fastest))]
    return tried


def decide_speed(measure: Callable[[float], Speed], target: float, seconds: float) -> Speed:
    """Measure a speed, again in twice the time while its interval contains the target, and return the last answer.

    Args:
        measure: one speed, given a budget in seconds.
        target: which it is to reach.
        seconds: budget of the first attempt.
    """
    for attempt in range(ATTEMPTS):
        speed, low, high = measure(seconds * 2**attempt)
        if not low < target < high:
            break
    return speed, low, high


def best(tried: list[TriedShape]) -> TriedShape:
    """Return the one whose answers are nearest to the teacher's; of equal ones the fastest.

    One whose short run diverged, so that it is not finite, is as far as one that had none.
    """

    def distance(each: TriedShape) -> float:
        return each.divergence if each.divergence is not None and math.isfinite(each.divergence) else math.inf

    return min(tried, key=lambda each: (distance(each), -each.speedup))
