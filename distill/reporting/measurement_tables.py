"""The speed and memory of a record as table cells, with the notes that keep them honest."""

from typing import Any

from distill.evaluation.record import Record, dataset, model_metrics
from distill.reporting.formatting import (
    MISSING,
    NOT_APPLICABLE,
    megabytes,
    metric_label,
    metric_text,
    milliseconds,
    percent,
    quantity,
    speedup_interval,
)
from distill.reporting.tables import Table

WIDE_INTERVAL = 0.20
"""Relative width from which a speed interval is pointed out: such a point was taken on a noisy machine."""


def speed_cells(record: Record) -> Table:
    """One row per batch x length: both times, speedup with interval, and its split into depth x attention."""
    points = record.get("speed") or []
    places = {(point["device"], point["dtype"]) for point in points}
    rows, notes = [], []
    for point in points:
        marks, explained = _speed_marks(point)
        parts = point.get("depth_speedup"), point.get("attention_speedup")
        rows.append(
            (
                *((f"{point['device']} {point['dtype']}",) if len(places) > 1 else ()),
                f"{point['batch_size']}",
                f"{point['length']:,}{marks}",
                milliseconds(point.get("teacher_ms")),
                milliseconds(point.get("student_ms")),
                speedup_interval(point),
                MISSING if None in parts else f"{parts[0]:.2f}× · {parts[1]:.2f}×",
            )
        )
        notes += [note for note in explained if note not in notes]
    headers = ("batch", "tokens", "teacher", "student", "speedup [95 %]", "depth · attention")
    where = "" if len(places) != 1 else " on {} in {}".format(*next(iter(places)))
    where += ", torch.compile" if any(point.get("compiled") for point in points) else ""
    if any(row[-1] != MISSING for row in rows):
        notes.append("speedup = depth (teacher / softmax student of the same depth) · attention (that one / student)")
    if noise := noise_text(record):
        notes.append(noise)
    if throughput := throughput_text(record):
        notes.append(throughput)
    if points and (crossover := crossover_text(record)):
        notes.append(crossover)
    return Table(f"Speed{where}", (*(("machine",) if len(places) > 1 else ()), *headers), tuple(rows), tuple(notes))


def _speed_marks(point: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the marks behind a point's length and the notes that explain them."""
    if point.get("speedup") is None:
        reason = point.get("reason") or "could not be measured"
        return "", [f"batch {point['batch_size']}, {point['length']:,} tokens: {reason}"]
    marks = {}
    if is_wide(point):
        marks["~"] = "interval wider than 20 %: the machine was busy or noisy"
    if point.get("speed_only"):
        marks["*"] = "beyond the teacher's position table: timed only, says nothing about quality there"
    if point.get("teacher_windows", 1) > 1:
        marks["w"] = "the teacher reads windows of as many tokens as it has positions, the student all at once"
    return "".join(f" {mark}" for mark in marks), [f"{mark} {text}" for mark, text in marks.items()]


def is_wide(point: dict[str, Any]) -> bool:
    """Tell whether a speedup's interval is too wide to be quoted without a warning."""
    low, high = point.get("low"), point.get("high")
    return low is not None and high is not None and (high - low) / point["speedup"] > WIDE_INTERVAL


def noise_text(record: Record) -> str | None:
    """Say what the teacher measured against itself, None when that was not done."""
    noise = record.get("noise") or {}
    if noise.get("ratio") is None:
        return None
    interval = f"{noise['ratio']:.2f}× [{noise['low']:.2f}, {noise['high']:.2f}]"
    return f"the machine's noise: the teacher against itself measured {interval} instead of 1.00×"


def throughput_text(record: Record) -> str | None:
    """Say how many tokens per second both models read on the task's own texts, None when that was not measured."""
    measured = record.get("throughput")
    if measured is None:
        return None
    start = f"on {dataset(record)}'s own texts, batch {measured['batch_size']}"
    if measured["speedup"] is None:
        return f"{start}: {measured['reason']}"
    rates = ", ".join(f"{role} {quantity(measured[f'{role}_tokens_per_second'])}" for role in ("teacher", "student"))
    return (
        f"{start} ({measured['tokens_per_example']:.0f} tokens each, {percent(measured['padding'])} padding): "
        f"{rates} tokens/s, {speedup_interval(measured)}{' ~' if is_wide(measured) else ''}"
    )


def crossover_text(record: Record) -> str | None:
    """Say from which length on the student's attention is faster than softmax attention, None when unknown."""
    length = record.get("crossover_length")
    if length is None:
        reason = record.get("crossover_reason")
        return f"crossover length: {reason}" if reason else None
    batch_size = min(point["batch_size"] for point in record["speed"])
    return f"the student's attention overtakes softmax at about {length:,} tokens (batch {batch_size})"


def memory_cells(record: Record) -> Table:
    """One row per batch x length: peak memory of teacher and student."""
    rows, notes = [], []
    for point in record.get("memory") or []:
        teacher, student = point.get("teacher_mb"), point.get("student_mb")
        if point.get("reason"):
            notes.append(f"batch {point['batch_size']}, {point['length']:,} tokens: {point['reason']}")
        ratio = MISSING if not teacher or not student else f"{teacher / student:.2f}×"
        sizes = (megabytes(value) for value in (teacher, student))
        rows.append((f"{point['batch_size']}", f"{point['length']:,}", *sizes, ratio))
    return Table(
        "Peak memory of a forward pass, beside the weights",
        ("batch", "tokens", "teacher", "student", "saving"),
        tuple(rows),
        tuple(notes),
    )


def deployment_cells(record: Record) -> Table:
    """One row per deployment, below the student in torch: metrics, size, largest difference of a logit."""
    deployments = record.get("deployments") or []
    metrics = model_metrics(record, "student")
    rows = []
    if deployments:
        scores = [metric_text(name, value) for name, value in metrics.items()]
        rows.append(("torch float32", *scores, NOT_APPLICABLE, NOT_APPLICABLE))
    for deployment in deployments:
        scores = [metric_text(name, (deployment["metrics"] or {}).get(name)) for name in metrics]
        parity = deployment["parity"]
        rows.append(
            (
                f"{deployment['format']} {deployment['dtype']} ({deployment['file']})",
                *scores,
                megabytes(deployment["megabytes"]),
                MISSING if parity is None else f"{parity:.1e}",
            )
        )
    headers = ("student as", *(metric_label(name) for name in metrics), "file size", "largest difference of a logit")
    return Table("Deployments", headers, tuple(rows))


def deployment_speed_cells(record: Record) -> Table:
    """One row per deployment x batch x length: both times and their ratio with its interval."""
    rows, notes = [], []
    for deployment in record.get("deployments") or []:
        name = f"{deployment['format']} {deployment['dtype']}"
        for point in deployment["speed"]:
            if point["speedup"] is None:
                notes.append(f"{name}, batch {point['batch_size']}, {point['length']:,} tokens: {point['reason']}")
            mark = " ~" if is_wide(point) else ""
            times = (milliseconds(point[f"{which}_ms"]) for which in ("student", "deployed"))
            rows.append(
                (name, f"{point['batch_size']}", f"{point['length']:,}{mark}", *times, speedup_interval(point))
            )
    if any(row[2].endswith("~") for row in rows):
        notes.append("~ interval wider than 20 %: the machine was busy or noisy")
    headers = ("student as", "batch", "tokens", "in torch", "deployed", "torch / deployed [95 %]")
    return Table("Latency of the deployments", headers, tuple(rows), tuple(notes))
