"""What a user would pick instead of the student, as table cells beside the student itself."""

from typing import Any

from distill.evaluation.record import Record, model_metrics
from distill.reporting.formatting import (
    MISSING,
    NOT_APPLICABLE,
    megabytes,
    metric_label,
    metric_text,
    percent_interval,
)
from distill.reporting.tables import Table


def alternative_cells(record: Record) -> Table:
    """One row per alternative below the student: metric, retention with interval, size, and speed at each length."""
    name, alternatives = record["main_metric"], record.get("alternatives") or []
    lengths = sorted({point["length"] for alternative in alternatives for point in alternative["speed"]})
    rows, notes = [], []
    for alternative in alternatives:
        points = {point["length"]: point for point in alternative["speed"]}
        rows.append(
            (
                alternative["name"],
                metric_text(name, (alternative["metrics"] or {}).get(name)),
                percent_interval((alternative["retention"] or {}).get(name)),
                NOT_APPLICABLE if alternative["format"] == "torch" else megabytes(alternative["megabytes"]),
                *(_times(points[length]["speedup"]) if length in points else MISSING for length in lengths),
            )
        )
        notes += _reasons(alternative)
    if rows:
        rows.insert(0, _student_row(record, alternatives, lengths))
        notes = [*_explanation(record, alternatives), *notes]
    headers = ("instead of the student", metric_label(name), f"retention of {metric_label(name)}", "file size")
    return Table(
        "Alternatives", (*headers, *(f"at {length:,} tokens" for length in lengths)), tuple(rows), tuple(notes)
    )


def _student_row(record: Record, alternatives: list[dict[str, Any]], lengths: list[int]) -> tuple[str, ...]:
    """Return the student's row, its times from the same rounds as those of the alternatives."""
    points = {
        point["length"]: point["teacher_ms"] / point["student_ms"]
        for alternative in alternatives
        for point in alternative["speed"]
        if point["student_ms"]
    }
    name = record["main_metric"]
    return (
        "student",
        metric_text(name, model_metrics(record, "student").get(name)),
        percent_interval(record["retention"].get(name)),
        NOT_APPLICABLE,
        *(_times(points.get(length)) for length in lengths),
    )


def _times(speedup: float | None) -> str:
    return MISSING if speedup is None else f"{speedup:.2f}×"


def _explanation(record: Record, alternatives: list[dict[str, Any]]) -> list[str]:
    """Say against what and where speeds were measured, and which length is that of the user's own texts."""
    points = [point for alternative in alternatives for point in alternative["speed"] if point["speedup"] is not None]
    if not points:
        return []
    median = record.get("median_length")
    own = f"; the median of the texts is {median:,} tokens" if median else ""
    return [f"at … tokens: times as fast as the teacher in torch, batch {points[0]['batch_size']}{own}"]


def _reasons(alternative: dict[str, Any]) -> list[str]:
    """Explain what could not be measured: once where it is the whole alternative."""
    if alternative.get("reason"):
        return [f"{alternative['name']}: {alternative['reason']}"]
    missing = [point for point in alternative["speed"] if point["speedup"] is None]
    return [f"{alternative['name']}, {point['length']:,} tokens: {point['reason']}" for point in missing]
