"""Everything of a comparison that is timed or weighed: noise, speed by length, crossover, throughput, memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from distill.benchmark.latency import NO_CONTROL, crossover_length, measure_noise, measure_speed
from distill.benchmark.memory import measure_memory
from distill.benchmark.throughput import measure_throughput
from distill.data.batching import TokenizedExamples
from distill.models.flops import attention_name, model_flops
from distill.models.windowed_bert import window_lengths
from distill.utils.errors import UserError, choices_hint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class CompareSettings:
    """What is measured, and how long it may take."""

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    lengths: tuple[int, ...] = (16, 32, 128, 512, 1024, 2048, 4096)
    """In tokens."""
    dtype: str = "float32"
    """Of weights and activations while speed and memory are measured."""
    compiled: bool = False
    """Time all models through torch.compile."""
    seconds_per_point: float = 2.0
    max_seconds: float = 180.0
    """Of all speed points together; a point that does not fit is null and says so."""
    resamples: int = 10_000
    """Of the paired bootstrap."""
    measure_memory: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"dtype {self.dtype!r} is unknown; {choices_hint(self.dtype, DTYPES)}")
        for name in ("batch_sizes", "lengths"):
            if not all(value > 0 for value in getattr(self, name)):
                raise UserError(f"{name} must be positive, got {list(getattr(self, name))}")
        for name in ("seconds_per_point", "max_seconds", "resamples"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")


def measure(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    control: PreTrainedModel | None,
    settings: CompareSettings,
    device: torch.device | str,
    folders: Mapping[str, Path | str] | None,
    examples: TokenizedExamples,
) -> dict[str, Any]:
    """Measure noise, speed, crossover, throughput and memory, as the keyword arguments of `build_record`.

    Args:
        teacher: sequence classifier.
        student: the same interface.
        control: softmax student of the student's depth, or None; a student whose attention is softmax is its own.
        settings: what is measured.
        device: where.
        folders: checkpoints of ``teacher`` and ``student`` for the memory measurement, or None for none.
        examples: the task's own texts, for the throughput.
    """
    if not settings.batch_sizes or not settings.lengths:
        return {}
    is_softmax = attention_name(student.config) == "softmax"
    control = student if control is None and is_softmax else control
    batch_sizes, lengths = sorted(settings.batch_sizes), sorted(settings.lengths)
    where: dict[str, Any] = {"device": device, "dtype": DTYPES[settings.dtype], "compiled": settings.compiled}
    shared: dict[str, Any] = {**where, "vocabulary_size": teacher.config.vocab_size}
    seconds = settings.seconds_per_point
    noise = measure_noise(teacher, **shared, batch_size=batch_sizes[0], length=lengths[0], seconds=seconds)
    speed = measure_speed(
        teacher,
        student,
        control,
        **shared,
        batch_sizes=batch_sizes,
        lengths=lengths,
        seconds_per_point=seconds,
        max_seconds=settings.max_seconds,
    )
    for point in speed:
        windows = [point["length"]] if point["speed_only"] else window_lengths(teacher, point["length"])
        point["teacher_windows"] = len(windows)
        for role, model, lengths_read in (("teacher", teacher, windows), ("student", student, [point["length"]])):
            try:
                flops = sum(model_flops(model.config, length) for length in lengths_read)
                point[f"{role}_flops"] = point["batch_size"] * flops
            except UserError:
                point[f"{role}_flops"] = None
    if is_softmax:
        crossover: tuple[int | None, str | None] = (None, "the student's attention is softmax")
    elif control is None:
        crossover = (None, NO_CONTROL)
    else:
        crossover = crossover_length(speed, student, control, **shared, seconds_per_point=seconds)
    throughput = measure_throughput(teacher, student, examples, **where, batch_size=batch_sizes[-1], seconds=seconds)
    memory: list[dict[str, Any]] = []
    if settings.measure_memory and folders is not None:
        points = [(batch_sizes[0], length) for length in lengths]
        memory = measure_memory(
            folders,
            device=device,
            dtype=where["dtype"],
            points=points,
            remote_code=("student", "baseline"),
            in_windows=[("teacher", point["length"]) for point in speed if point["teacher_windows"] > 1],
        )
    return {"noise": noise, "speed": speed, "crossover": crossover, "throughput": throughput, "memory": memory}
