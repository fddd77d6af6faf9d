"""The parts of `distill.evaluation.record.Record`, one frozen dataclass for every kind of object in it.

Shares and metrics are fractions, times milliseconds per batch unless they are named seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.benchmark.points import Interval, Point, SpeedPoint, SpeedupPoint
from distill.utils.record_json import ADDED_LATER, JsonObject

__all__ = ["Interval", "Point", "SpeedPoint", "SpeedupPoint"]  # for readers, which never import what measures

Metrics = Mapping[str, float | None]
"""Name of a metric to its value; None where it is not finite."""
Intervals = Mapping[str, Interval]
"""Name of a metric to a number with its interval."""


# ---------------------------------------------------------------- models and their quality


@dataclass(frozen=True)
class WindowsRead(JsonObject):
    """How a teacher reads texts that are longer than its positions."""

    tokens: int
    """Of a window."""
    share_of_texts: float | None
    """That need several."""


@dataclass(frozen=True)
class ModelEntry(JsonObject):
    """Quality and size of one model; all null, with a ``reason``, where there is none."""

    metrics: Metrics | None
    parameters: int | None
    layers: int | None
    attention: str | None
    flops: int | None
    """Of one example of ``flops_length`` tokens."""
    flops_length: int | None = None
    flops_reason: str | None = None
    windows: WindowsRead | None = None
    calibration_error: float | None = None
    """Expected calibration error of a classifier."""
    label_correlation: float | None = None
    """Of the answers with the labels, Matthews' or Pearson's: 0 for chance and for one answer to all."""
    threshold: float | None = None
    """Probability from which on a text has a label, chosen on held-out train; of a multi-label task alone."""
    reason: str | None = None


@dataclass(frozen=True)
class ModelEntries(JsonObject):
    """The models of a comparison."""

    teacher: ModelEntry
    student: ModelEntry
    baseline: ModelEntry

    def __getitem__(self, role: str) -> ModelEntry:
        return getattr(self, role)


@dataclass(frozen=True)
class McNemarTest(JsonObject):
    """How many examples only one of the two gets right, and McNemar's exact p."""

    only_teacher: int
    only_student: int
    p: float | None


@dataclass(frozen=True)
class WilliamsTest(JsonObject):
    """Williams' test of two correlations with the labels; null with a ``reason`` where it has no meaning."""

    t: float | None
    p: float | None
    reason: str | None = None


@dataclass(frozen=True)
class LinearForm(JsonObject):
    """What a student that attends short texts exactly answers by its mechanism alone."""

    metrics: Metrics
    retention: Intervals
    agreement: float | None = None
    """Share of the examples that both forms answer alike; of a classification."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The keys of a record that follow from logits and labels."""

    retention: Intervals
    agreement: float | None
    """Share of the examples that teacher and student answer alike, with all labels of a set, or their correlation."""
    baseline_retention: Intervals | None = None
    gain: Intervals | None = None
    """Student's score minus the baseline's."""
    kl_to_teacher: float | None = None
    mcnemar: McNemarTest | None = None
    never_answered: Mapping[str, tuple[str, ...]] | None = None
    """Model to the classes that occur and that it never predicts; of a classification, as the two before."""
    williams: Mapping[str, WilliamsTest] | None = None
    """Of a regression, correlation by correlation."""


# ---------------------------------------------------------------- stages


@dataclass(frozen=True)
class LayerFidelity(JsonObject):
    """Share of the teacher layer's variance that the student layer explains, at most 1."""

    layer: int
    teacher_layer: int
    attention_output: float | None = field(default=None, metadata=ADDED_LATER)
    hidden_states: float | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True)
class TeacherCache(JsonObject):
    """The teacher's outputs on disk, and the time that they saved."""

    gigabytes: float | None
    seconds_per_pass: float | None
    seconds_saved: float | None


@dataclass(frozen=True)
class Shape(JsonObject):
    """How large a student is."""

    attention: str
    parameters: int
    hidden_size: int
    num_heads: tuple[int, ...]
    """Of every layer."""
    intermediate_size: tuple[int, ...]
    """Of every layer."""
    flops: int
    """Of one example of ``flops_length`` tokens."""
    flops_length: int


@dataclass(frozen=True, kw_only=True)
class StageEntry(JsonObject):
    """What one stage of the distillation cost and bought."""

    name: str
    seconds: float | None
    checkpoint_seconds: float | None = None
    """Of ``seconds``, those that went into checkpoints."""
    examples_per_second: float | None
    metrics: Metrics | None
    """On validation, after the stage."""
    fidelity: tuple[LayerFidelity, ...] | None
    epochs: float | None = None
    best_epoch: int | None = field(default=None, metadata=ADDED_LATER)
    held_out: tuple[Metrics, ...] = field(default=(), metadata=ADDED_LATER)
    """After every epoch, on the part of train that epochs are selected on."""
    shape: Shape | None = field(default=None, metadata=ADDED_LATER)
    """Of the student that it trained."""
    teacher_cache: TeacherCache | None = None


@dataclass(frozen=True)
class UnlabelledEntry(JsonObject):
    """Texts without labels that the stages read beside those of train."""

    texts: int
    tokens: int
    """Special ones included."""
    dropped: Mapping[str, int]
    """Why others in the same place were not used, to their number."""
    share_of_stage_texts: float
    """Of all texts that the stages draw from."""


# ---------------------------------------------------------------- other formats and other choices


@dataclass(frozen=True)
class AlternativePoint(SpeedupPoint):
    """Something else than the student, timed in the same rounds as teacher and student."""

    teacher_ms: float | None
    student_ms: float | None
    alternative_ms: float | None
    speedup: float | None
    """Teacher / alternative; ``low`` and ``high`` are its interval."""
    low: float | None
    high: float | None
    over_student: float | None
    """Student / alternative."""
    over_student_low: float | None
    over_student_high: float | None
    pairs: int | None = None
    threads: int | None = None
    """Of all of them; None in records before this was written down, of as many as torch had."""
    reason: str | None = None

    @property
    def interval_over_student(self) -> Interval:
        """How many times as fast as the student it is."""
        return Interval(self.over_student, self.over_student_low, self.over_student_high)


@dataclass(frozen=True)
class AlternativeEntry(JsonObject):
    """What a user would pick instead of the student; null with a ``reason`` where it cannot be had."""

    name: str
    format: str
    dtype: str
    """What it computes in: float32 and its like, or int8 of the weights."""
    metrics: Metrics | None
    retention: Intervals | None
    agreement: float | None
    megabytes: float | None
    speed: tuple[AlternativePoint, ...]
    fused: Mapping[str, int] | None = None
    """Operation to how often the runtime has it."""
    reason: str | None = None

    @property
    def thread_counts(self) -> list[int | None]:
        """Of the points, the most first; one None where that was not written down."""
        return sorted({point.threads for point in self.speed}, key=lambda count: count or 0, reverse=True)

    def speed_on(self, threads: int | None) -> dict[int, AlternativePoint]:
        """Length to the point that was measured on so many threads."""
        return {point.length: point for point in self.speed if point.threads == threads}

    @property
    def usual_speed(self) -> dict[int, AlternativePoint]:
        """Length to the point of as many threads as torch had: as models are timed elsewhere in a record."""
        return self.speed_on(self.thread_counts[0]) if self.speed else {}


@dataclass(frozen=True)
class DeploymentPoint(SpeedupPoint):
    """An exported student, timed in the same rounds as the student in torch."""

    student_ms: float | None
    deployed_ms: float | None
    speedup: float | None
    """Student in torch / exported; ``low`` and ``high`` are its interval."""
    low: float | None
    high: float | None
    pairs: int | None = None
    threads: int | None = None
    """Of either; None in records before this was written down, of as many as torch had."""
    reason: str | None = None


@dataclass(frozen=True)
class DeploymentEntry(JsonObject):
    """An exported student: a file, what it answers and how fast it is."""

    format: str
    dtype: str
    """Of the weights: float32 or int8."""
    file: str
    megabytes: float | None
    parity: float | None
    """Largest difference of a logit from the student in torch."""
    metrics: Metrics | None
    speed: tuple[DeploymentPoint, ...]
    retention: Intervals | None = None
    """Of the student in torch; None in records before this was measured, as the ones below."""
    teacher_retention: Intervals | None = None
    """Of the teacher; None outside a run, which has no teacher."""
    agreement: float | None = None
    """With the student in torch."""
    fp32_layers: tuple[str, ...] | None = None
    """Of int8: layers that stayed in fp32 because the metric would have fallen too far on held-out texts of train."""
    environment: Mapping[str, Any] | None = None
