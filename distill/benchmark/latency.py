"""How much faster a student is: interleaved pairs in one process, medians, an interval (`distill.benchmark.timing`).

    speedup = teacher / student = depth_speedup (teacher / control) × attention_speedup (control / student)

The control is a softmax student of the same depth. All models run with the same dtype, threads and batch, and the
teacher with SDPA, never with eager attention.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.benchmark.model_copies import extend_positions, is_speed_only, make_inputs, prepare_model
from distill.benchmark.timing import (
    MIN_ROUNDS,
    Clock,
    PointError,
    check_affordable,
    is_out_of_memory,
    ratio_of_medians,
    time_interleaved,
    typical_seconds,
)
from distill.utils.clock import now
from distill.utils.progress import progress_bar

CROSSOVER_STEPS = 4
CROSSOVER_MULTIPLE = 8  # tokens; batches are padded to multiples of 8
NO_CONTROL = "no softmax student of the same depth to compare with"

Point = dict[str, Any]


Calls = Mapping[str, Callable[[], Any]]


def time_on_device(
    prepare: Callable[[], Calls], device: torch.device | str, seconds: float, clock: Clock, compiled: bool
) -> dict[str, np.ndarray]:
    """Time forward passes against each other, (blocks, rounds) seconds each; PointError says why it cannot be done.

    ``prepare`` makes the models and the calls of a block; compiled ones are made once, as compiling takes long.
    """
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    with _memory_errors(), torch.inference_mode():
        if compiled:
            calls = prepare()
            _compile_now(calls)
        return time_interleaved(
            (lambda: calls) if compiled else prepare, seconds=seconds, clock=clock, synchronize=synchronize
        )


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn exhausted memory into the reason of a null point."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise PointError("out of memory") from None


def _compile_now(calls: Mapping[str, Callable[[], Any]]) -> None:
    """Let torch.compile do its work before anything is timed, afresh for every point.

    Without forgetting the earlier points it would compile for shapes of any length from the second point on, and give
    up compiling at all from the ninth.
    """
    from torch._dynamo.exc import TorchDynamoException

    torch.compiler.reset()
    try:
        for call in calls.values():
            call()
    except TorchDynamoException as error:
        raise PointError(f"torch.compile failed: {str(error).strip().splitlines()[0]}") from None


def _time_models(
    models: Mapping[str, nn.Module],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    batch_size: int,
    length: int,
    vocabulary_size: int,
    seconds: float,
    compiled: bool,
    clock: Clock,
) -> dict[str, np.ndarray]:
    """Time copies of models at one point, (blocks, rounds) seconds each; PointError says why it cannot be done."""
    speed_only = is_speed_only(models.values(), length)

    def forward(model: nn.Module) -> Callable[[], Any]:
        copied = prepare_model(extend_positions(model, length) if speed_only else model, device, dtype)
        inputs = make_inputs(copied, batch_size, length, vocabulary_size=vocabulary_size, device=device)
        return partial(torch.compile(copied) if compiled else copied, **inputs)

    def prepare() -> Calls:
        return {name: forward(model) for name, model in models.items()}

    return time_on_device(prepare, device, seconds, clock, compiled)


def _measure_point(times: Mapping[str, np.ndarray], point: Point) -> Point:
    """Fill a point of the record from the seconds per round of teacher, student and, if there, control."""
    typical = {name: typical_seconds(seconds) for name, seconds in times.items()}
    speedup, low, high = ratio_of_medians(times["teacher"], times["student"])
    point |= {
        "teacher_ms": 1000 * typical["teacher"],
        "student_ms": 1000 * typical["student"],
        "speedup": speedup,
        "low": low,
        "high": high,
        "pairs": times["teacher"].size,
    }
    if "control" in times:
        attention, attention_low, attention_high = ratio_of_medians(times["control"], times["student"])
        point |= {
            "depth_speedup": typical["teacher"] / typical["control"],
            "attention_speedup": attention,
            "attention_low": attention_low,
            "attention_high": attention_high,
        }
    else:
        point["reason"] = NO_CONTROL
    return point


def measure_speed(
    teacher: nn.Module,
    student: nn.Module,
    control: nn.Module | None,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    batch_sizes: Sequence[int],
    lengths: Sequence[int],
    vocabulary_size: int,
    seconds_per_point: float,
    max_seconds: float = math.inf,
    compiled: bool = False,
    clock: Clock = now,
) -> list[Point]:
    """Measure the forward pass of teacher, student and control at every batch size and length.

    Args:
        teacher: sequence classifier, called with ``input_ids`` and ``attention_mask`` (B, N).
        student: the same interface.
        control: softmax student of the student's depth, or None: the two parts of the speedup are then null.
        device: where to measure; the models given are copied and stay where they are.
        dtype: of all weights and activations.
        batch_sizes: numbers of examples.
        lengths: in tokens, without padding; beyond a position table it is tiled and the point is ``speed_only``.
        vocabulary_size: of the random input.
        seconds_per_point: budget of a point; a slow one overruns it to reach 6 rounds.
        max_seconds: of all points together; what does not fit is null with that reason.
        compiled: run all models through torch.compile.
        clock: seconds, monotonic.

    Returns:
        The entries ``speed[]`` of the record, times in milliseconds per batch; a point that ran out of memory or
        would take far too long has nulls and a ``reason``, and the rest goes on.
    """
    given = {"teacher": teacher, "student": student, "control": control}
    models = {name: model for name, model in given.items() if model is not None}
    points = []
    seconds_per_token = 0.0
    begin = clock()
    grid = list(product(sorted(batch_sizes), sorted(lengths)))
    for batch_size, length in progress_bar(grid, name="speed", unit="point", disable=not grid):
        point = _empty_point(device, dtype, batch_size, length, is_speed_only(models.values(), length))
        point |= {"compiled": True} if compiled else {}
        round_seconds = seconds_per_token * batch_size * length
        try:
            check_affordable(round_seconds, seconds_per_point)
            if clock() - begin + max(seconds_per_point, MIN_ROUNDS * round_seconds) > max_seconds:
                raise PointError(f"did not fit into the {max_seconds:g} s for all points")
            times = _time_models(
                models,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                length=length,
                vocabulary_size=vocabulary_size,
                seconds=seconds_per_point,
                compiled=compiled,
                clock=clock,
            )
        except PointError as error:
            points.append(point | {"reason": str(error)})
            continue
        points.append(_measure_point(times, point))
        # The best rate so far bounds a longer point from below: long ones that cannot pay are not even tried.
        rate = sum(map(typical_seconds, times.values())) / (batch_size * length)
        seconds_per_token = min(seconds_per_token or rate, rate)
    return points


def _empty_point(
    device: torch.device | str, dtype: torch.dtype, batch_size: int, length: int, speed_only: bool
) -> Point:
    measured = ("teacher_ms", "student_ms", "speedup", "low", "high", "depth_speedup", "attention_speedup")
    return {
        "device": torch.device(device).type,
        "dtype": str(dtype).removeprefix("torch."),
        "batch_size": batch_size,
        "length": length,
        **dict.fromkeys(measured),
        "speed_only": speed_only,
    }


def measure_noise(
    teacher: nn.Module,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    batch_size: int,
    length: int,
    vocabulary_size: int,
    seconds: float,
    compiled: bool = False,
    clock: Clock = now,
) -> Point:
    """Time the teacher against itself: the ratio must be 1.00, and how far it is from that is the machine's noise.

    Returns:
        ``batch_size``, ``length``, ``ratio``, ``low``, ``high``; null with a ``reason`` where it cannot be measured.
    """
    point: Point = {"batch_size": batch_size, "length": length, "ratio": None, "low": None, "high": None}
    try:
        times = _time_models(
            {"first": teacher, "second": teacher},
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            length=length,
            vocabulary_size=vocabulary_size,
            seconds=seconds,
            compiled=compiled,
            clock=clock,
        )
    except PointError as error:
        return point | {"reason": str(error)}
    ratio, low, high = ratio_of_medians(times["first"], times["second"])
    return point | {"ratio": ratio, "low": low, "high": high}


def crossover_length(
    speed: Sequence[Point],
    student: nn.Module,
    control: nn.Module | None,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    vocabulary_size: int,
    seconds_per_point: float,
    compiled: bool = False,
    clock: Clock = now,
) -> tuple[int | None, str | None]:
    """Find the length from which on the student's attention is faster than softmax in a model of the same depth.

    Taken at the smallest measured batch size: the smallest measured length such that there and at every longer one
    attention_speedup > 1 (so that noise around 1 at short lengths is no crossing), narrowed by bisection between it
    and its shorter neighbour, in at most 4 measurements and multiples of 8 tokens.

    Returns:
        The length in tokens and None, or None and the reason.
    """
    if control is None:
        return None, NO_CONTROL
    measured = [point for point in speed if point["attention_speedup"] is not None]
    if not measured:
        return None, "no length could be measured"
    batch_size = min(point["batch_size"] for point in measured)
    points = sorted((p["length"], p["attention_speedup"]) for p in measured if p["batch_size"] == batch_size)
    faster_from = len(points)
    while faster_from > 0 and points[faster_from - 1][1] > 1:
        faster_from -= 1
    if faster_from == len(points):
        return None, f"the student's attention is not faster than softmax up to {points[-1][0]} tokens"
    high = points[faster_from][0]
    if faster_from == 0:
        return high, None
    low = points[faster_from - 1][0]
    for _ in range(CROSSOVER_STEPS):
        middle = (low + high) // 2 // CROSSOVER_MULTIPLE * CROSSOVER_MULTIPLE
        if middle <= low:
            break
        try:
            times = _time_models(
                {"control": control, "student": student},
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                length=middle,
                vocabulary_size=vocabulary_size,
                seconds=seconds_per_point,
                compiled=compiled,
                clock=clock,
            )
        except PointError:
            break
        if ratio_of_medians(times["control"], times["student"])[0] > 1:
            high = middle
        else:
            low = middle
    return high, None
