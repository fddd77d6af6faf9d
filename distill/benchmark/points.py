"""What is measured of two models, as the record keeps it: times in milliseconds per batch, lengths in tokens.

A number that could not be measured is None, and ``reason`` says why.
"""

from dataclasses import dataclass, field

from distill.utils.record_json import ADDED_LATER, JsonObject


@dataclass(frozen=True)
class Interval(JsonObject):
    """A number and its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


class Speedup:
    """What every point with a speedup can do."""

    speedup: float | None
    low: float | None
    high: float | None

    @property
    def interval(self) -> Interval:
        """The speedup with its interval."""
        return Interval(self.speedup, self.low, self.high)


@dataclass(frozen=True)
class Point(JsonObject):
    """Where, and at which size of a batch, something was measured."""

    device: str
    dtype: str
    batch_size: int
    length: int


@dataclass(frozen=True)
class SpeedupPoint(Point, Speedup):
    """A point that says how many times as fast one model is as another."""


@dataclass(frozen=True)
class SpeedPoint(SpeedupPoint):
    """A forward pass of teacher and student, timed in the same rounds, and of a softmax student of the same depth."""

    teacher_ms: float | None
    student_ms: float | None
    speedup: float | None
    """Teacher / student; ``low`` and ``high`` are its interval."""
    low: float | None
    high: float | None
    depth_speedup: float | None
    """Teacher / softmax student of the same depth and width."""
    attention_speedup: float | None
    """That one / student."""
    speed_only: bool = field(default=False, metadata=ADDED_LATER)
    """Beyond the teacher's position table, which was tiled for it."""
    compiled: bool = False
    pairs: int | None = None
    """Rounds behind the medians."""
    width_speedup: float | None = None
    """What of ``depth_speedup`` fewer units bought: softmax student of the teacher's width / of the student's."""
    attention_low: float | None = None
    attention_high: float | None = None
    reason: str | None = None
    teacher_windows: int | None = None
    """How many windows the teacher reads such a text in."""
    teacher_flops: int | None = field(default=None, metadata=ADDED_LATER)
    student_flops: int | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True)
class NoisePoint(JsonObject):
    """The teacher timed against itself: how far the ratio is from 1 is the machine's noise."""

    batch_size: int
    length: int
    ratio: float | None
    low: float | None
    high: float | None
    reason: str | None = None

    @property
    def interval(self) -> Interval:
        """The ratio with its interval."""
        return Interval(self.ratio, self.low, self.high)


@dataclass(frozen=True)
class ThroughputPoint(JsonObject, Speedup):
    """Both models on the task's own texts, in batches of nearly one length."""

    device: str
    dtype: str
    batch_size: int
    num_examples: int | None
    """In the batches that were timed."""
    tokens_per_example: float | None
    padding: float | None
    """Share of the computed positions."""
    teacher_tokens_per_second: float | None
    """Without padding, as the student's."""
    student_tokens_per_second: float | None
    speedup: float | None
    low: float | None
    high: float | None
    reason: str | None = None


@dataclass(frozen=True)
class MemoryPoint(Point):
    """Peak memory of a forward pass beside the weights, in MB (10⁶ bytes)."""

    teacher_mb: float | None = field(default=None, metadata=ADDED_LATER)
    student_mb: float | None = field(default=None, metadata=ADDED_LATER)
    reason: str | None = None


@dataclass(frozen=True)
class Measurements:
    """Everything of a comparison that is timed or weighed; empty where nothing was."""

    noise: NoisePoint | None = None
    speed: tuple[SpeedPoint, ...] = ()
    throughput: ThroughputPoint | None = None
    memory: tuple[MemoryPoint, ...] = ()
    crossover_length: int | None = None
    crossover_reason: str | None = "speed was not measured"
