"""How fast what a user would pick instead of the student is, beside teacher and student in the same rounds.

Shapes: n examples, C labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from distill.benchmark.conditions import Models
from distill.benchmark.model_copies import extend_positions, is_speed_only, make_inputs, prepare_model
from distill.benchmark.threads import on_threads, thread_counts
from distill.benchmark.timing import (
    Budget,
    Calls,
    PointError,
    TimedPoint,
    Times,
    ratio_of_medians,
    time_on_device,
    time_points,
    typical_seconds,
)
from distill.evaluation.comparison import ComparisonSetup, smallest_vocabulary
from distill.evaluation.record_parts import AlternativePoint
from distill.export.onnx import short_reason
from distill.models.positions import find_positions
from distill.utils.errors import UserError
from distill.utils.progress import progress_bar
from distill.utils.record_json import unmeasured

Splits = Mapping[str, np.ndarray]
"""split -> (n, C) logits, or (n,) labels"""
UNLIMITED = 2**31
"""Tokens that a teacher without a position table reads in one piece."""


@dataclass(frozen=True)
class Alternative:
    """One of them, with what it answers; where it cannot be had there is the reason."""

    name: str
    format: str
    dtype: str
    """What it computes in: float32 and its like, or int8 of the weights."""
    load: Callable[[], nn.Module] | None = None
    """Returns it with as many threads as torch has now."""
    logits: Splits | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the record says of it: ``megabytes``, ``fused``, or ``reason``."""


def measure_alternative_speed(
    setup: ComparisonSetup, models: Models, alternatives: Sequence[Alternative], lengths: Sequence[int]
) -> dict[str, tuple[AlternativePoint, ...]]:
    """Time teacher, student and alternatives against each other in the same rounds.

    Returns:
        name -> points by length, of one thread first, then of as many as torch has, where these are more.
    """
    grid = [(min(setup.settings.batch_sizes, default=1), length) for length in lengths]
    points: dict[str, tuple[AlternativePoint, ...]] = {each.name: () for each in alternatives}
    for threads in thread_counts(setup.device):
        with on_threads(threads):
            loaded, reasons = _load(alternatives)
            timed = _time_grid(setup, models, loaded, grid)
        for each in alternatives:
            reason = reasons.get(each.name)
            points[each.name] += tuple(_speed_point(each, threads, point, setup, reason) for point in timed)
    return points


def _load(alternatives: Sequence[Alternative]) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return those that can be loaded by their names, and of the others why they cannot."""
    loaded, reasons = {}, {}
    for each in alternatives:
        if each.load is None:
            continue
        try:
            loaded[each.name] = each.load()
        except Exception as error:  # an alternative never ends a comparison
            reasons[each.name] = str(error) if isinstance(error, UserError) else short_reason(error)
    return loaded, reasons


def _time_grid(
    setup: ComparisonSetup, models: Models, loaded: Mapping[str, nn.Module], grid: Sequence[tuple[int, int]]
) -> list[TimedPoint]:
    def time_point(batch_size: int, length: int) -> Times:
        try:
            return _time_point(setup, models, loaded, batch_size, length)
        except (PointError, UserError) as error:
            raise PointError(str(error)) from error
        except Exception as error:  # whatever a library says to a shape; see `distill.export.alternatives._attempt`
            raise PointError(short_reason(error)) from error

    shown = progress_bar(grid, name="alternatives", unit="length", disable=not grid)
    return list(time_points(shown, time_point, Budget(setup.settings.seconds_per_point)))


def _time_point(
    setup: ComparisonSetup, models: Models, loaded: Mapping[str, nn.Module], batch_size: int, length: int
) -> Times:
    """Return (blocks, rounds) seconds of each model by its name; PointError says why there are none."""
    in_torch: dict[str, nn.Module] = {"teacher": models.teacher, "student": models.student}
    in_torch |= {name: model for name, model in loaded.items() if isinstance(model, PreTrainedModel)}
    in_onnx = {name: model for name, model in loaded.items() if name not in in_torch}
    if not loaded:
        raise PointError("there is no alternative to time")
    if length > (find_positions(models.teacher) or UNLIMITED) or is_speed_only([models.teacher], length):
        raise PointError("longer than the teacher has positions")
    # Not compiled: ONNX Runtime beside them is not either.
    conditions = replace(setup.conditions(smallest_vocabulary(models)), compiled=False)

    def prepare() -> Calls:
        longer = {
            name: extend_positions(model, length) if is_speed_only([model], length) else model
            for name, model in in_torch.items()
        }
        copies = {name: prepare_model(model, setup.device, conditions.dtype) for name, model in longer.items()}
        sizes: dict[str, Any] = {"vocabulary_size": conditions.vocabulary_size, "device": setup.device}
        ready: dict[str, nn.Module] = {**copies, **in_onnx}
        return {
            name: partial(model, **make_inputs(model, batch_size, length, **sizes)) for name, model in ready.items()
        }

    return time_on_device(prepare, conditions, setup.settings.seconds_per_point)


def _speed_point(
    alternative: Alternative, threads: int, point: TimedPoint, setup: ComparisonSetup, reason: str | None
) -> AlternativePoint:
    """Return a point of the record from the times of teacher, student and the alternative."""
    place: dict[str, Any] = {"device": torch.device(setup.device).type, "dtype": alternative.dtype}
    place |= {"batch_size": point.batch_size, "length": point.length, "threads": threads}
    if alternative.name not in point.times:
        return unmeasured(AlternativePoint, **place, reason=alternative.facts.get("reason") or reason or point.reason)
    teacher, student, times = (point.times[name] for name in ("teacher", "student", alternative.name))
    speedup, low, high = ratio_of_medians(teacher, times)
    over_student, over_student_low, over_student_high = ratio_of_medians(student, times)
    return AlternativePoint(
        **place,
        teacher_ms=1000 * typical_seconds(teacher),
        student_ms=1000 * typical_seconds(student),
        alternative_ms=1000 * typical_seconds(times),
        speedup=speedup,
        low=low,
        high=high,
        over_student=over_student,
        over_student_low=over_student_low,
        over_student_high=over_student_high,
        pairs=teacher.size,
    )
