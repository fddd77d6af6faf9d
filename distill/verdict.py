"""The record in one sentence, and the record as a gate."""

from collections.abc import Mapping
from typing import Any

from distill.cells import (
    MISSING,
    dataset,
    metric_label,
    metric_text,
    percent,
    percent_interval,
    speedup_interval,
)
from distill.errors import UserError, choices_hint
from distill.record import Record

REFERENCE_LENGTH = 128
REQUIREMENTS = ("retention", "speedup")


def verdict(record: Record) -> str:
    """Say in one line what was kept, what was gained and what distilling added."""
    return " ".join(verdict_sentences(record))


def verdict_sentences(record: Record) -> list[str]:
    """Return the sentences of the verdict: quality first, then speed and the baseline where they were measured."""
    return [sentence for sentence in (_quality(record), _speed(record), _baseline(record)) if sentence]


def _quality(record: Record) -> str:
    student, name = record["models"]["student"], record["main_metric"]
    who = f"The {student['layers']}-layer {student['attention']} student"
    label, where = metric_label(name), f"on {dataset(record)}"
    retention = record["retention"].get(name) or {}
    if retention.get("value") is None:
        reason = retention.get("reason") or "retention could not be measured"
        return f"{who} scores {metric_text(name, student['metrics'].get(name))} {label} {where} ({reason})."
    return f"{who} keeps {percent_interval(retention)} of its teacher's {label} {where}."


def _speed(record: Record) -> str | None:
    point = reference_point(record)
    if point is None:
        return None
    place = f"at {point['length']:,} tokens and batch {point['batch_size']} ({point['device']}, {point['dtype']})"
    longest = max(
        (other for other in _measured(record) if _conditions(other) == _conditions(point)), key=lambda p: p["length"]
    )
    further = ""
    if longest["length"] > point["length"]:
        further = f", {speedup_interval(longest)} at {longest['length']:,} tokens"
    low, high = point.get("low") or point["speedup"], point.get("high") or point["speedup"]
    if low > 1:
        return f"It runs {speedup_interval(point)} as fast {place}{further}."
    if high < 1:
        return f"It is SLOWER than its teacher: {speedup_interval(point)} its speed {place}{further}."
    return f"Its speed cannot be told from the teacher's: {speedup_interval(point)} {place}{further}."


def _baseline(record: Record) -> str | None:
    name = record["main_metric"]
    kept = percent_interval((record.get("baseline_retention") or {}).get(name))
    return (
        None
        if kept == MISSING
        else f"The same student trained on labels alone keeps {kept} of that {metric_label(name)}."
    )


def _measured(record: Record) -> list[dict[str, Any]]:
    return [point for point in record.get("speed") or [] if point.get("speedup") is not None]


def _conditions(point: dict[str, Any]) -> tuple[str, str, int]:
    return point["device"], point["dtype"], point["batch_size"]


def reference_point(record: Record) -> dict[str, Any] | None:
    """Return the speed point that a single sentence quotes: smallest batch, length nearest to 128 tokens."""
    return min(
        _measured(record),
        key=lambda point: (point["batch_size"], abs(point["length"] - REFERENCE_LENGTH)),
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

    ``retention`` asks the lower interval end of the main metric's retention to reach the bar, ``speedup`` asks it of
    every measured point. A number that could not be measured proves nothing and fails.
    """
    failures = []
    if "retention" in requirements:
        name = record["main_metric"]
        entry = record["retention"].get(name) or {}
        if not _reaches(entry.get("low"), requirements["retention"]):
            failures.append(
                f"retention of {metric_label(name)} {percent_interval(entry)}: "
                f"lower end below {percent(requirements['retention'])}"
            )
    if "speedup" in requirements:
        points = record.get("speed") or []
        failures += [] if points else ["speedup: no speed was measured"]
        failures += [
            f"speedup at batch {point['batch_size']}, {point['length']:,} tokens {speedup_interval(point)}: "
            f"lower end below {requirements['speedup']:g}×"
            for point in points
            if not _reaches(point.get("low"), requirements["speedup"])
        ]
    return failures


def _reaches(low: float | None, bar: float) -> bool:
    return low is not None and low >= bar
