"""Tokens per second on the task's own texts: what the speed at fixed lengths comes to on real ones."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.benchmark.latency import Point, time_on_device
from distill.benchmark.model_copies import accepted_inputs, prepare_model
from distill.benchmark.timing import MIN_ROUNDS, Clock, PointError, ratio_of_medians, typical_seconds
from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.utils.clock import now

MIN_BATCHES = 4
MEASURED = ("teacher_tokens_per_second", "student_tokens_per_second", "speedup", "low", "high")


def measure_throughput(
    teacher: nn.Module,
    student: nn.Module,
    examples: TokenizedExamples,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    batch_size: int,
    seconds: float,
    compiled: bool = False,
    clock: Clock = now,
) -> Point:
    """Time both models on the texts of a split, in batches of nearly one length, as a careful user would run them.

    A round is one pass over batches that stand evenly among all batches in order of length: as many as the budget
    allows, at least 4, so that their lengths are distributed as those of the split.

    Args:
        teacher: sequence classifier.
        student: the same interface.
        examples: the texts.
        device: where to measure; the models given are copied and stay where they are.
        dtype: of all weights and activations.
        batch_size: examples per batch.
        seconds: budget of the whole measurement; a slow one overruns it to reach 6 rounds.
        compiled: run both through torch.compile.
        clock: seconds, monotonic.

    Returns:
        ``throughput`` of the record: ``device``, ``dtype``, ``batch_size``, ``num_examples`` in the timed batches,
        their mean number of tokens ``tokens_per_example``, ``padding`` (share of the computed positions), tokens per
        second of both models without padding, ``speedup``, ``low``, ``high``; null with a ``reason`` where it
        cannot be measured.
    """
    models = {"teacher": teacher, "student": student}
    batches = sorted_batches(examples.lengths, batch_size, max_tokens=None)
    point: Point = {
        **{"device": torch.device(device).type, "dtype": str(dtype).removeprefix("torch."), "batch_size": batch_size},
        **dict.fromkeys(("num_examples", "tokens_per_example", "padding", *MEASURED)),
    }

    def passes(indices: list[int]) -> dict[str, Callable[[], Any]]:
        inputs = [collate(examples, batches[index], device)[0] for index in indices]
        copies = {name: prepare_model(model, device, dtype) for name, model in models.items()}
        return {name: _one_pass(model, inputs, compiled) for name, model in copies.items()}

    try:
        middle = partial(passes, [len(batches) // 2])
        once = sum(times.min() for times in time_on_device(middle, device, seconds / 4, clock, compiled).values())
        chosen = _evenly(len(batches), int(seconds / (MIN_ROUNDS * once)))
        times = time_on_device(partial(passes, chosen), device, seconds, clock, compiled)
    except PointError as error:
        return point | {"reason": str(error)}
    used = [batches[index] for index in chosen]
    lengths = np.concatenate([examples.lengths[indices] for indices in used])
    positions = sum(collate(examples, indices)[0]["input_ids"].numel() for indices in used)
    speedup, low, high = ratio_of_medians(times["teacher"], times["student"])
    return point | {
        "num_examples": len(lengths),
        "tokens_per_example": float(lengths.mean()),
        "padding": float(1 - lengths.sum() / positions),
        **{f"{name}_tokens_per_second": lengths.sum() / typical_seconds(taken) for name, taken in times.items()},
        **{"speedup": speedup, "low": low, "high": high},
    }


def _evenly(total: int, wanted: int) -> list[int]:
    """Return about ``wanted`` of ``total`` positions, at least `MIN_BATCHES`, each in the middle of an equal share."""
    count = min(total, max(wanted, MIN_BATCHES))
    return [int((2 * index + 1) * total / (2 * count)) for index in range(count)]


def _one_pass(model: nn.Module, batches: list[dict[str, Tensor]], compiled: bool) -> Callable[[], Any]:
    inputs: list[Mapping[str, Tensor]] = [accepted_inputs(model, batch) for batch in batches]
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        for batch in inputs:
            forward(**batch)

    return run
