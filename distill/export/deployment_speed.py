"""How fast an exported student is beside the student in torch, in the same rounds: on one thread and on all."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from distill.benchmark.conditions import Conditions
from distill.benchmark.model_copies import is_speed_only, make_inputs, prepare_model
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
from distill.evaluation.record_parts import DeploymentPoint
from distill.utils.record_json import unmeasured


def measure_latency(
    student: PreTrainedModel,
    deployed: Mapping[str, Callable[[], nn.Module]],
    grid: Sequence[tuple[int, int]],
    seconds_per_point: float,
) -> dict[str, tuple[DeploymentPoint, ...]]:
    """Time the student in torch and its deployments against each other on the CPU, in interleaved rounds.

    Args:
        student: timed in fp32.
        deployed: what loads models of the same interface, by the dtype of their weights; they have as many threads as
            torch has when they are loaded.
        grid: pairs of batch size and length in tokens, without padding, the cheaper ones first.
        seconds_per_point: budget of a point; a slow one overruns it to reach 6 rounds.

    Returns:
        dtype -> points, of one thread first, then of as many as torch has, where these are more. One that cannot be
        measured, as beyond the student's positions, has nulls and a ``reason``.
    """
    points: dict[str, tuple[DeploymentPoint, ...]] = dict.fromkeys(deployed, ())
    for threads in thread_counts():
        with on_threads(threads):
            timed = _time(student, {dtype: load() for dtype, load in deployed.items()}, grid, seconds_per_point)
        for dtype in deployed:
            points[dtype] += tuple(_speed_point(dtype, threads, point) for point in timed)
    return points


def _time(
    student: PreTrainedModel,
    deployed: Mapping[str, nn.Module],
    grid: Sequence[tuple[int, int]],
    seconds_per_point: float,
) -> list[TimedPoint]:
    conditions = Conditions("cpu", torch.float32, student.config.vocab_size)

    def time_point(batch_size: int, length: int) -> Times:
        if is_speed_only([student], length):
            raise PointError("longer than the student has positions")
        if is_speed_only(deployed.values(), length):
            raise PointError("longer than the export has positions")

        def prepare() -> Calls:
            models = {"student": prepare_model(student, "cpu", torch.float32), **deployed}
            sizes: dict[str, Any] = {"vocabulary_size": conditions.vocabulary_size, "device": "cpu"}
            inputs = {name: make_inputs(model, batch_size, length, **sizes) for name, model in models.items()}
            return {name: partial(model, **inputs[name]) for name, model in models.items()}

        return time_on_device(prepare, conditions, seconds_per_point)

    return list(time_points(grid, time_point, Budget(seconds_per_point)))


def _speed_point(dtype: str, threads: int, point: TimedPoint) -> DeploymentPoint:
    """Return a point of the record from the times of the student in torch and of the deployment in ``dtype``."""
    place: dict[str, Any] = {"device": "cpu", "dtype": dtype, "batch_size": point.batch_size, "length": point.length}
    place |= {"threads": threads}
    if dtype not in point.times:
        return unmeasured(DeploymentPoint, **place, reason=point.reason)
    student, deployed = point.times["student"], point.times[dtype]
    speedup, low, high = ratio_of_medians(student, deployed)
    return DeploymentPoint(
        **place,
        student_ms=1000 * typical_seconds(student),
        deployed_ms=1000 * typical_seconds(deployed),
        speedup=speedup,
        low=low,
        high=high,
        pairs=student.size,
    )
