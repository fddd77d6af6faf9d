"""How fast what a user would pick instead of the student is, beside teacher and student in the same rounds.

Shapes: n examples, C labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from distill.benchmark.latency import Point, time_on_device
from distill.benchmark.model_copies import extend_positions, is_speed_only, make_inputs, prepare_model
from distill.benchmark.suite import DTYPES, CompareSettings
from distill.benchmark.timing import PointError, check_affordable, ratio_of_medians, typical_seconds
from distill.evaluation.record import ALTERNATIVE_NUMBERS
from distill.export.onnx import short_reason
from distill.utils.clock import now
from distill.utils.errors import UserError
from distill.utils.progress import progress_bar

Splits = Mapping[str, np.ndarray]
"""split -> (n, C) logits, or (n,) labels"""


UNLIMITED = 2**31


@dataclass(frozen=True)
class Alternative:
    """One of them, with what it answers; without a model there is the reason."""

    name: str
    format: str
    dtype: str
    """What it computes in: float32 and its like, or int8 of the weights."""
    model: nn.Module | None = None
    logits: Splits | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the record says of it: ``megabytes``, ``fused``, or ``reason``."""


def measure_alternative_speed(
    models: Mapping[str, PreTrainedModel],
    alternatives: Sequence[Alternative],
    lengths: Sequence[int],
    settings: CompareSettings,
    device: torch.device | str,
) -> dict[str, list[Point]]:
    """Time teacher, student and alternatives against each other in the same rounds; name -> points by length."""
    points: dict[str, list[Point]] = {alternative.name: [] for alternative in alternatives}
    seconds_per_token, batch_size = 0.0, min(settings.batch_sizes, default=1)
    for length in progress_bar(lengths, name="alternatives", unit="length", disable=not lengths):
        times, reason = {}, None
        try:
            check_affordable(seconds_per_token * batch_size * length, settings.seconds_per_point)
            times = _time_point(models, alternatives, batch_size, length, settings, device)
            rate = sum(map(typical_seconds, times.values())) / (batch_size * length)
            seconds_per_token = min(seconds_per_token or rate, rate)
        except (PointError, UserError) as error:
            reason = str(error)
        except Exception as error:  # whatever a library says to a shape; see `_attempt`
            reason = short_reason(error)
        for alternative in alternatives:
            point: Point = {
                **{"device": torch.device(device).type, "dtype": alternative.dtype},
                **{"batch_size": batch_size, "length": length, **dict.fromkeys(ALTERNATIVE_NUMBERS)},
            }
            if alternative.name in times:
                point |= _compared(times["teacher"], times["student"], times[alternative.name])
            else:
                point["reason"] = alternative.facts.get("reason") or reason
            points[alternative.name].append(point)
    return points


def positions_of(teacher: PreTrainedModel) -> int:
    """Return how many tokens a teacher reads in one piece."""
    return int(getattr(teacher.config, "max_position_embeddings", UNLIMITED))


def _time_point(
    models: Mapping[str, PreTrainedModel],
    alternatives: Sequence[Alternative],
    batch_size: int,
    length: int,
    settings: CompareSettings,
    device: torch.device | str,
) -> dict[str, np.ndarray]:
    """Return (blocks, rounds) seconds of each model by its name; PointError says why there are none."""
    in_torch: dict[str, nn.Module] = {role: models[role] for role in ("teacher", "student")}
    in_torch |= {each.name: each.model for each in alternatives if each.model is not None and each.format == "torch"}
    in_onnx = {each.name: each.model for each in alternatives if each.model is not None and each.format == "onnx"}
    if not in_onnx and len(in_torch) == len(("teacher", "student")):
        raise PointError("there is no alternative to time")
    if length > positions_of(models["teacher"]) or is_speed_only([models["teacher"]], length):
        raise PointError("longer than the teacher has positions")

    def prepare() -> dict[str, Callable[[], Any]]:
        longer = {
            name: extend_positions(model, length) if is_speed_only([model], length) else model
            for name, model in in_torch.items()
        }
        copies = {name: prepare_model(model, device, DTYPES[settings.dtype]) for name, model in longer.items()}
        sizes: dict[str, Any] = {"vocabulary_size": models["teacher"].config.vocab_size, "device": device}
        ready: dict[str, nn.Module] = {**copies, **in_onnx}
        return {
            name: partial(model, **make_inputs(model, batch_size, length, **sizes)) for name, model in ready.items()
        }

    return time_on_device(prepare, device, settings.seconds_per_point, now, compiled=False)


def _compared(teacher: np.ndarray, student: np.ndarray, alternative: np.ndarray) -> Point:
    speedup, low, high = ratio_of_medians(teacher, alternative)
    over_student, over_student_low, over_student_high = ratio_of_medians(student, alternative)
    return {
        "teacher_ms": 1000 * typical_seconds(teacher),
        "student_ms": 1000 * typical_seconds(student),
        "alternative_ms": 1000 * typical_seconds(alternative),
        **{"speedup": speedup, "low": low, "high": high},
        **{"over_student": over_student, "over_student_low": over_student_low, "over_student_high": over_student_high},
        "pairs": teacher.size,
    }
