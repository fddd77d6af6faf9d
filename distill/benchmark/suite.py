"""Everything of a comparison that is timed or weighed: noise, speed by length, crossover, throughput, memory."""

from dataclasses import replace
from itertools import product

from transformers import PreTrainedModel

from distill.benchmark.conditions import Conditions, Models
from distill.benchmark.latency import crossover_length, measure_noise, measure_speed
from distill.benchmark.memory import measure_memory
from distill.benchmark.points import Measurements, MemoryPoint, SpeedPoint
from distill.benchmark.throughput import measure_throughput
from distill.benchmark.timing import Budget
from distill.config.schema import ComparisonConfig
from distill.data.batching import TokenizedExamples
from distill.models.flops import attention_name, model_flops
from distill.models.windowed_bert import window_lengths
from distill.utils.errors import UserError


def measure(
    models: Models,
    conditions: Conditions,
    settings: ComparisonConfig,
    examples: TokenizedExamples,
    for_teacher: TokenizedExamples,
) -> Measurements:
    """Measure noise, speed, crossover, throughput and memory.

    Args:
        models: teacher, student and control; a student whose attention is softmax is its own control.
        conditions: the same for all models.
        settings: at which batch sizes and lengths, and how long that may take.
        examples: the task's own texts, for the throughput.
        for_teacher: the same rows in the teacher's tokens.
    """
    if not settings.batch_sizes or not settings.lengths:
        return Measurements()
    is_softmax = attention_name(models.student.config) == "softmax"
    if models.control is None and is_softmax:
        models = replace(models, control=models.student)
    batch_sizes, lengths = sorted(settings.batch_sizes), sorted(settings.lengths)
    seconds = settings.seconds_per_point
    noise = measure_noise(models.teacher, conditions, batch_sizes[0], lengths[0], seconds)
    grid = list(product(batch_sizes, lengths))
    speed = measure_speed(models, conditions, grid, Budget(seconds, settings.max_seconds))
    speed = tuple(with_costs(point, models) for point in speed)
    crossover: tuple[int | None, str | None] = (None, "the student's attention is softmax")
    if not is_softmax:
        crossover = crossover_length(speed, models, conditions, seconds)
    throughput = measure_throughput(models, examples, conditions, batch_sizes[-1], seconds, for_teacher=for_teacher)
    memory: tuple[MemoryPoint, ...] = ()
    if settings.memory and models.folders is not None:
        memory = measure_memory(
            models.folders,
            conditions,
            [(batch_sizes[0], each) for each in lengths],
            remote_code=("student", "baseline"),
            in_windows=[("teacher", point.length) for point in speed if (point.teacher_windows or 1) > 1],
        )
    return Measurements(noise, speed, throughput, memory, *crossover)


def with_costs(point: SpeedPoint, models: Models) -> SpeedPoint:
    """Return a point with the teacher's windows and the FLOPs of both models, None where these are unknown."""
    windows = [point.length] if point.speed_only else window_lengths(models.teacher, point.length)

    def flops(model: PreTrainedModel, lengths: list[int]) -> int | None:
        try:
            return point.batch_size * sum(model_flops(model.config, length) for length in lengths)
        except UserError:
            return None

    return replace(
        point,
        teacher_windows=len(windows),
        teacher_flops=flops(models.teacher, windows),
        student_flops=flops(models.student, [point.length]),
    )
