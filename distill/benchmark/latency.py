"""How much faster a student is: interleaved pairs in one process, medians, an interval (`distill.benchmark.timing`).

    speedup = teacher / student = depth_speedup (teacher / control) × attention_speedup (control / student)

The control is a softmax student of the same depth. All models run with the same dtype, threads and batch, and the
teacher with SDPA, never with eager attention.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from torch import nn

from distill.benchmark.conditions import Conditions, Models
from distill.benchmark.model_copies import extend_positions, is_speed_only, make_inputs, prepare_model
from distill.benchmark.points import NoisePoint, SpeedPoint
from distill.benchmark.timing import (
    Budget,
    Calls,
    Clock,
    PointError,
    TimedPoint,
    Times,
    ratio_of_medians,
    time_on_device,
    time_points,
    typical_seconds,
)
from distill.utils.progress import progress_bar
from distill.utils.record_json import unmeasured

CROSSOVER_STEPS = 4
CROSSOVER_MULTIPLE = 8  # tokens, to which batches are padded on GPUs; finer is not worth a measurement
NO_CONTROL = "no softmax student of the same depth to compare with"


def time_models(
    models: Mapping[str, nn.Module],
    conditions: Conditions,
    batch_size: int,
    length: int,
    seconds: float,
    clock: Clock = perf_counter,
) -> Times:
    """Time copies of models at one point; PointError says why it cannot be done."""
    speed_only = is_speed_only(models.values(), length)
    device = conditions.device

    def forward(model: nn.Module) -> Callable[[], Any]:
        copied = prepare_model(extend_positions(model, length) if speed_only else model, device, conditions.dtype)
        inputs = make_inputs(copied, batch_size, length, vocabulary_size=conditions.vocabulary_size, device=device)
        return partial(conditions.compile(copied), **inputs)

    def prepare() -> Calls:
        return {name: forward(model) for name, model in models.items()}

    return time_on_device(prepare, conditions, seconds, clock)


def measure_speed(
    models: Models,
    conditions: Conditions,
    grid: Sequence[tuple[int, int]],
    budget: Budget,
    clock: Clock = perf_counter,
) -> tuple[SpeedPoint, ...]:
    """Measure the forward pass of teacher, student and controls at every batch size and length.

    Args:
        models: called with ``input_ids`` and ``attention_mask`` (B, N).
        conditions: the same for all.
        grid: pairs of batch size and length in tokens, without padding, the cheaper ones first; beyond a position
            table it is tiled and the point is ``speed_only``.
        budget: of a point, and of all of them.
        clock: seconds, monotonic.

    Returns:
        The entries ``speed`` of the record; a point that ran out of memory or would take far too long has nulls and a
        ``reason``, and the rest goes on.
    """
    timed = models.timed

    def time_point(batch_size: int, length: int) -> Times:
        return time_models(timed, conditions, batch_size, length, budget.seconds_per_point, clock)

    shown = progress_bar(grid, name="speed", unit="point", disable=not grid)
    return tuple(
        _speed_point(point, conditions, is_speed_only(timed.values(), point.length))
        for point in time_points(shown, time_point, budget, clock)
    )


def _speed_point(point: TimedPoint, conditions: Conditions, speed_only: bool) -> SpeedPoint:
    """Return a point of the record from the times of teacher, student and, if there, controls."""
    place: dict[str, Any] = {
        **conditions.place,
        **{"batch_size": point.batch_size, "length": point.length},
        **{"speed_only": speed_only, "compiled": conditions.compiled},
    }
    times = point.times
    if not times:
        return unmeasured(SpeedPoint, **place, reason=point.reason)
    typical = {name: typical_seconds(seconds) for name, seconds in times.items()}
    speedup, low, high = ratio_of_medians(times["teacher"], times["student"])
    measured = place | {
        "teacher_ms": 1000 * typical["teacher"],
        "student_ms": 1000 * typical["student"],
        **{"speedup": speedup, "low": low, "high": high},
        "pairs": times["teacher"].size,
    }
    if "control" not in times:
        return unmeasured(SpeedPoint, **measured, reason=NO_CONTROL)
    attention, attention_low, attention_high = ratio_of_medians(times["control"], times["student"])
    return SpeedPoint(
        **measured,
        depth_speedup=typical["teacher"] / typical["control"],
        width_speedup=typical["full_width"] / typical["control"] if "full_width" in typical else None,
        attention_speedup=attention,
        attention_low=attention_low,
        attention_high=attention_high,
    )


def measure_noise(
    teacher: nn.Module,
    conditions: Conditions,
    batch_size: int,
    length: int,
    seconds: float,
    clock: Clock = perf_counter,
) -> NoisePoint:
    """Time the teacher against itself: the ratio must be 1.00, and how far it is from that is the machine's noise."""
    both = {"first": teacher, "second": teacher}
    try:
        times = time_models(both, conditions, batch_size, length, seconds, clock)
    except PointError as error:
        return unmeasured(NoisePoint, batch_size=batch_size, length=length, reason=str(error))
    ratio, low, high = ratio_of_medians(times["first"], times["second"])
    return NoisePoint(batch_size, length, ratio, low, high)


def crossover_length(
    speed: Sequence[SpeedPoint],
    models: Models,
    conditions: Conditions,
    seconds_per_point: float,
    clock: Clock = perf_counter,
) -> tuple[int | None, str | None]:
    """Find the length from which on the student's attention is faster than softmax in a model of the same depth.

    Taken at the smallest measured batch size: the smallest measured length such that there and at every longer one
    attention_speedup > 1 (so that noise around 1 at short lengths is no crossing), narrowed by bisection between it
    and its shorter neighbour, in at most 4 measurements and multiples of 8 tokens.

    Returns:
        The length in tokens and None, or None and the reason.
    """
    if models.control is None:
        return None, NO_CONTROL
    measured = [(point, point.attention_speedup) for point in speed if point.attention_speedup is not None]
    if not measured:
        return None, "no length could be measured"
    batch_size = min(point.batch_size for point, _ in measured)
    points = sorted((point.length, speedup) for point, speedup in measured if point.batch_size == batch_size)
    faster_from = len(points)
    while faster_from > 0 and points[faster_from - 1][1] > 1:
        faster_from -= 1
    if faster_from == len(points):
        return None, f"the student's attention is not faster than softmax up to {points[-1][0]} tokens"
    high = points[faster_from][0]
    if faster_from == 0:
        return high, None
    low = points[faster_from - 1][0]
    both = {"control": models.control, "student": models.student}
    for _ in range(CROSSOVER_STEPS):
        middle = (low + high) // 2 // CROSSOVER_MULTIPLE * CROSSOVER_MULTIPLE
        if middle <= low:
            break
        try:
            times = time_models(both, conditions, batch_size, middle, seconds_per_point, clock)
        except PointError:
            break
        if ratio_of_medians(times["control"], times["student"])[0] > 1:
            high = middle
        else:
            low = middle
    return high, None
