"""The record in one sentence, and the record as a gate."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from distill.evaluation.record import Record, dataset, model_metrics
from distill.evaluation.record_parts import AlternativeEntry, Interval, SpeedupPoint
from distill.reporting.formatting import (
    MISSING,
    as_shown,
    gain_interval,
    metric_label,
    metric_text,
    percent,
    percent_interval,
    speedup_interval,
    times_as_shown,
)
from distill.tasks import FEW_EXAMPLES
from distill.utils.errors import UserError, choices_hint

REFERENCE_LENGTH = 128
REQUIREMENTS = ("retention", "speedup", "gain")
AnyPoint = TypeVar("AnyPoint", bound=SpeedupPoint)
CHANCE = 0.05
"""Correlation with the labels up to which a teacher is said to have learned nothing."""
MAX_NAMES = 5
"""Classes that a sentence names; of more it gives the number."""


def verdict(record: Record) -> str:
    """Say in one line what was kept, what was gained and what distilling added."""
    return " ".join(verdict_sentences(record))


def verdict_sentences(record: Record) -> list[str]:
    """Return the sentences of the verdict: first what speaks against the student, then quality, speed and baseline."""
    no_gain = _no_gain(record)
    against = [_too_few(record), _untaught_teacher(record), no_gain, *_never_answered(record)]
    against.append(_better_alternative(record))
    found = [*against, _quality(record), _speed(record), None if no_gain else _baseline(record)]
    return [sentence for sentence in found if sentence]


def _too_few(record: Record) -> str | None:
    """Say that the examples are too few, so that whatever follows may be chance."""
    if record.num_examples >= FEW_EXAMPLES:
        return None
    examples = "1 example is" if record.num_examples == 1 else f"{record.num_examples} examples are"
    return (
        f"{examples} too few to conclude anything from: measure on {FEW_EXAMPLES} or more, better 1,000, "
        "before you trust what follows."
    )


def _untaught_teacher(record: Record) -> str | None:
    """Say that the teacher knows nothing, so that keeping all of it means nothing."""
    correlation = record.models.teacher.label_correlation
    if correlation is None or correlation > CHANCE:
        return None
    return (
        f"The teacher has not learned {dataset(record)}: its answers correlate with the labels by {correlation:.2f} "
        "(chance, and one answer for all, have 0), so that what a student keeps of it says nothing."
    )


def _no_gain(record: Record) -> str | None:
    """Say that distilling did not help, where labels alone are better by an interval that lies wholly below 0."""
    name = record.main_metric
    gain = (record.gain or {}).get(name)
    if gain is None or gain.value is None or gain.low is None or gain.high is None or as_shown(name, gain.high) >= 0:
        return None
    loss = Interval(-gain.value, -gain.high, -gain.low)
    unit = " points" if metric_text(name, 0.0).endswith("%") else ""
    reached = metric_text(name, model_metrics(record, "baseline").get(name))
    return (
        f"Distillation did not help: the same student on labels alone reaches {reached} {metric_label(name)} on "
        f"{dataset(record)} ({gain_interval(name, loss).lstrip('+').replace(' [', f'{unit} more [')})."
    )


def _never_answered(record: Record) -> list[str]:
    """Name the classes that the student never answers, and those that the teacher never does."""
    missing = record.never_answered or {}
    sentences = []
    for role in ("student", "teacher"):
        names = missing.get(role, ())
        if names:
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            kind = "label" if record.models[role].threshold is not None else "class"
            classes = kind if len(names) == 1 else {"class": "classes", "label": "labels"}[kind]
            sentences.append(f"The {role} never answers {classes} {', '.join(names[:MAX_NAMES])}{more}.")
    return sentences


def _better_alternative(record: Record) -> str | None:
    """Name the fastest of the alternatives that are faster than the student, by their interval, and not worse."""
    name, length = record.main_metric, record.median_length
    student = model_metrics(record, "student").get(name)
    better = [
        (point, alternative)
        for alternative in record.alternatives
        if _not_worse(alternative, name, student)
        for point in alternative.usual_speed.values()
        if point.length == length and times_as_shown(point.over_student_low or 0) > 1
    ]
    if not better or student is None:
        return None
    point, alternative = max(better, key=lambda found: found[0].over_student or 0)
    score = (alternative.metrics or {})[name]
    how = "better" if score is not None and as_shown(name, score) > as_shown(name, student) else "as good"
    scores = f"{metric_text(name, score)} against {metric_text(name, student)} {metric_label(name)}"
    return (
        f"The {alternative.name} is both faster than the student ({speedup_interval(point.interval_over_student)}) "
        f"and {how} ({scores}) at {length:,} tokens, about your median."
    )


def _not_worse(alternative: AlternativeEntry, name: str, student: float | None) -> bool:
    score = (alternative.metrics or {}).get(name)
    return score is not None and student is not None and as_shown(name, score) >= as_shown(name, student)


def _quality(record: Record) -> str:
    student, name = record.models.student, record.main_metric
    attention, _, exact = (student.attention or "").partition(", ")
    who = f"The {student.layers}-layer {attention} student{f' ({exact} tokens)' if exact else ''}"
    label, where = metric_label(name), f"on {dataset(record)}"
    retention = record.retention.get(name)
    if retention is None or retention.value is None:
        reason = (retention and retention.reason) or "retention could not be measured"
        score = metric_text(name, model_metrics(record, "student").get(name))
        return f"{who} scores {score} {label} {where} ({reason})."
    return f"{who} keeps {percent_interval(retention)} of its teacher's {label} {where}."


def _speed(record: Record) -> str | None:
    point = reference_point(record.speed)
    if point is None or point.speedup is None:
        return None
    place = f"at {point.length:,} tokens and batch {point.batch_size} ({point.device}, {point.dtype})"
    longest = max(
        (other for other in _measured(record.speed) if _conditions(other) == _conditions(point)),
        key=lambda other: other.length,
    )
    further = ""
    if longest.length > point.length:
        beyond = " (timing only: more than it has positions for)" if longest.speed_only else ""
        further = f", {speedup_interval(longest.interval)} at {longest.length:,} tokens{beyond}"
    low, high = (times_as_shown(end or point.speedup) for end in (point.low, point.high))
    if low > 1:
        return f"It runs {speedup_interval(point.interval)} as fast {place}{further}."
    if high < 1:
        return f"It is SLOWER than its teacher: {speedup_interval(point.interval)} its speed {place}{further}."
    return f"Its speed cannot be told from the teacher's: {speedup_interval(point.interval)} {place}{further}."


def _baseline(record: Record) -> str | None:
    name = record.main_metric
    kept = percent_interval((record.baseline_retention or {}).get(name))
    return (
        None
        if kept == MISSING
        else f"The same student trained on labels alone keeps {kept} of that {metric_label(name)}."
    )


def _measured(points: Iterable[AnyPoint]) -> list[AnyPoint]:
    return [point for point in points if point.speedup is not None]


def _conditions(point: SpeedupPoint) -> tuple[str, str, int]:
    return point.device, point.dtype, point.batch_size


def reference_point(points: Iterable[AnyPoint]) -> AnyPoint | None:
    """Return the speed point that a single sentence quotes: smallest batch, length nearest to 128 tokens."""
    return min(
        _measured(points),
        key=lambda point: (point.batch_size, abs(point.length - REFERENCE_LENGTH)),
        default=None,
    )


def parse_requirements(text: str) -> dict[str, float]:
    """Read ``retention=0.95,speedup=2.0``; UserError names what cannot be required."""
    bars: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in REQUIREMENTS:
            raise UserError(f"--require {name!r}: {choices_hint(name, REQUIREMENTS)}")
        try:
            bars[name] = float(value)
        except ValueError:
            raise UserError(f"--require {part!r}: write {name}=NUMBER") from None
    return bars


def unmet_requirements(record: Record, requirements: Mapping[str, float]) -> list[str]:
    """Return one line per requirement that the record does not prove; empty when it proves them all.

    ``retention`` asks the lower interval end of the main metric's retention to reach the bar, ``gain`` that of how far
    the student's main metric is above that of labels alone, in units of the metric (0.02 is two points of accuracy),
    ``speedup`` that of every measured point. A number that could not be measured proves nothing and fails.
    """
    failures = []
    if "retention" in requirements:
        name = record.main_metric
        entry = record.retention.get(name)
        if not _reaches(entry.low if entry else None, requirements["retention"]):
            failures.append(
                f"retention of {metric_label(name)} {percent_interval(entry)}: "
                f"lower end below {percent(requirements['retention'])}"
            )
    if "gain" in requirements:
        failures += _unmet_gain(record, requirements["gain"])
    if "speedup" in requirements:
        points = record.speed
        failures += [] if points else ["speedup: no speed was measured"]
        failures += [
            f"speedup at batch {point.batch_size}, {point.length:,} tokens {speedup_interval(point.interval)}: "
            f"lower end below {requirements['speedup']:g}×"
            for point in points
            if not _reaches(point.low, requirements["speedup"])
        ]
    return failures


def _unmet_gain(record: Record, bar: float) -> list[str]:
    name = record.main_metric
    gain = (record.gain or {}).get(name)
    if gain is None or gain.low is None:
        return ["gain: no student trained on labels alone was compared"]
    if _reaches(gain.low, bar):
        return []
    return [f"gain in {metric_label(name)} over labels alone {gain_interval(name, gain)}: lower end below {bar:g}"]


def _reaches(low: float | None, bar: float) -> bool:
    return low is not None and low >= bar
