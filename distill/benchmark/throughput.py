"""Tokens per second on the task's own texts: what the speed at fixed lengths comes to on real ones."""

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor, nn

from distill.benchmark.conditions import Conditions, Models
from distill.benchmark.model_copies import prepare_model
from distill.benchmark.points import ThroughputPoint
from distill.benchmark.timing import (
    MIN_ROUNDS,
    Calls,
    Clock,
    PointError,
    ratio_of_medians,
    time_on_device,
    typical_seconds,
)
from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.models.inputs import accepted_inputs
from distill.utils.record_json import unmeasured

MIN_BATCHES = 4


def measure_throughput(
    models: Models,
    examples: TokenizedExamples,
    conditions: Conditions,
    batch_size: int,
    seconds: float,
    clock: Clock = perf_counter,
    *,
    for_teacher: TokenizedExamples | None = None,
) -> ThroughputPoint:
    """Time both models on the texts of a split, in batches of nearly one length, as a careful user would run them.

    A round is one pass over batches that stand evenly among all batches in order of length: as many as the budget
    allows, at least 4, so that their lengths are distributed as those of the split.

    Args:
        models: teacher and student are timed.
        examples: the texts, in the student's tokens; by their length they are put into batches.
        conditions: the same for both.
        batch_size: examples per batch.
        seconds: budget of the whole measurement; a slow one overruns it to reach 6 rounds.
        clock: seconds, monotonic.
        for_teacher: the same texts in the tokens of a teacher with a tokenizer of its own. Each model's tokens per
            second are then of its own tokens; what of lengths and padding is told, of the student's.

    Returns:
        ``throughput`` of the record; null with a ``reason`` where it cannot be measured.
    """
    device = conditions.device
    batches = sorted_batches(examples.lengths, batch_size, max_tokens=None)
    place: dict[str, Any] = {**conditions.place, "batch_size": batch_size}

    read = {"teacher": examples if for_teacher is None else for_teacher, "student": examples}

    def passes(indices: list[int]) -> Calls:
        calls = {}
        for name, model in {"teacher": models.teacher, "student": models.student}.items():
            inputs = [collate(read[name], batches[index], device)[0] for index in indices]
            calls[name] = _one_pass(prepare_model(model, device, conditions.dtype), inputs, conditions)
        return calls

    try:
        middle = partial(passes, [len(batches) // 2])
        once = sum(times.min() for times in time_on_device(middle, conditions, seconds / 4, clock).values())
        chosen = _evenly(len(batches), int(seconds / (MIN_ROUNDS * once)))
        times = time_on_device(partial(passes, chosen), conditions, seconds, clock)
    except PointError as error:
        return unmeasured(ThroughputPoint, **place, reason=str(error))
    used = [batches[index] for index in chosen]
    lengths = np.concatenate([examples.lengths[indices] for indices in used])
    positions = sum(collate(examples, indices)[0]["input_ids"].numel() for indices in used)
    speedup, low, high = ratio_of_medians(times["teacher"], times["student"])
    rates: dict[str, Any] = {}
    for name, taken in times.items():
        tokens = sum(int(read[name].lengths[indices].sum()) for indices in used)
        rates[f"{name}_tokens_per_second"] = tokens / typical_seconds(taken)
    return ThroughputPoint(
        **place,
        **rates,
        num_examples=len(lengths),
        tokens_per_example=float(lengths.mean()),
        padding=float(1 - lengths.sum() / positions),
        speedup=speedup,
        low=low,
        high=high,
    )


def _evenly(total: int, wanted: int) -> list[int]:
    """Return about ``wanted`` of ``total`` positions, at least `MIN_BATCHES`, each in the middle of an equal share."""
    count = min(total, max(wanted, MIN_BATCHES))
    return [int((2 * index + 1) * total / (2 * count)) for index in range(count)]


def _one_pass(model: nn.Module, batches: list[dict[str, Tensor]], conditions: Conditions) -> Callable[[], Any]:
    inputs: list[Mapping[str, Tensor]] = [accepted_inputs(model, batch) for batch in batches]
    forward = conditions.compile(model)

    def run() -> None:
        for batch in inputs:
            forward(**batch)

    return run
