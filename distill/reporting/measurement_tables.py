"""The speed and memory of a record as table cells, and what could be used instead of the student."""

from collections.abc import Mapping, Sequence

from distill.evaluation.record import Record, dataset, model_metrics
from distill.evaluation.record_parts import (
    AlternativeEntry,
    AlternativePoint,
    DeploymentEntry,
    Interval,
    Metrics,
    SpeedPoint,
)
from distill.reporting.formatting import (
    MISSING,
    NOT_APPLICABLE,
    megabytes,
    metric_label,
    metric_text,
    milliseconds,
    percent,
    percent_interval,
    quantity,
    speedup_interval,
)
from distill.reporting.tables import Table

WIDE_INTERVAL = 0.20
"""Relative width from which a speed interval is pointed out: such a point was taken on a noisy machine."""


def speed_cells(record: Record) -> Table:
    """One row per batch x length: both times, speedup with interval, and its split into depth x attention."""
    points = record.speed
    places = {(point.device, point.dtype) for point in points}
    rows, notes = [], []
    for point in points:
        marks, explained = _speed_marks(point)
        depth, attention = point.depth_speedup, point.attention_speedup
        rows.append(
            (
                *((f"{point.device} {point.dtype}",) if len(places) > 1 else ()),
                f"{point.batch_size}",
                f"{point.length:,}{marks}",
                milliseconds(point.teacher_ms),
                milliseconds(point.student_ms),
                speedup_interval(point.interval),
                MISSING if depth is None or attention is None else f"{depth:.2f}× · {attention:.2f}×{_width(point)}",
            )
        )
        notes += [note for note in explained if note not in notes]
    headers = ("batch", "tokens", "teacher", "student", "speedup [95 %]", "depth · attention")
    where = "" if len(places) != 1 else " on {} in {}".format(*next(iter(places)))
    where += ", torch.compile" if any(point.compiled for point in points) else ""
    if any(row[-1] != MISSING for row in rows):
        notes.append("speedup = depth (teacher / softmax student of the same depth) · attention (that one / student)")
    if any(point.width_speedup for point in points):
        notes.append("in brackets: what of the depth's part is due to fewer units, the rest to fewer layers")
    if noise := noise_text(record):
        notes.append(noise)
    if throughput := throughput_text(record):
        notes.append(throughput)
    if points and (crossover := crossover_text(record)):
        notes.append(crossover)
    return Table(f"Speed{where}", (*(("machine",) if len(places) > 1 else ()), *headers), tuple(rows), tuple(notes))


def _speed_marks(point: SpeedPoint) -> tuple[str, list[str]]:
    """Return the marks behind a point's length and the notes that explain them."""
    if point.speedup is None:
        reason = point.reason or "could not be measured"
        return "", [f"batch {point.batch_size}, {point.length:,} tokens: {reason}"]
    marks = {}
    if is_wide(point.interval):
        marks["~"] = "interval wider than 20 %: the machine was busy or noisy"
    if point.speed_only:
        marks["*"] = "beyond the teacher's position table: timed only, says nothing about quality there"
    if (point.teacher_windows or 1) > 1:
        marks["w"] = "the teacher reads windows of as many tokens as it has positions, the student all at once"
    return "".join(f" {mark}" for mark in marks), [f"{mark} {text}" for mark, text in marks.items()]


def is_wide(speedup: Interval) -> bool:
    """Tell whether a speedup's interval is too wide to be quoted without a warning."""
    if speedup.value is None or speedup.low is None or speedup.high is None:
        return False
    return (speedup.high - speedup.low) / speedup.value > WIDE_INTERVAL


def noise_text(record: Record) -> str | None:
    """Say what the teacher measured against itself, None when that was not done."""
    if record.noise is None or record.noise.ratio is None:
        return None
    interval = speedup_interval(record.noise.interval)
    return f"the machine's noise: the teacher against itself measured {interval} instead of 1.00×"


def throughput_text(record: Record) -> str | None:
    """Say how many tokens per second both models read on the task's own texts, None when that was not measured."""
    measured = record.throughput
    if measured is None:
        return None
    start = f"on {dataset(record)}'s own texts, batch {measured.batch_size}"
    if measured.speedup is None:
        return f"{start}: {measured.reason}"
    teacher, student = (
        quantity(rate) for rate in (measured.teacher_tokens_per_second, measured.student_tokens_per_second)
    )
    return (
        f"{start} ({measured.tokens_per_example:.0f} tokens each, {percent(measured.padding)} padding): "
        f"teacher {teacher}, student {student} tokens/s, "
        f"{speedup_interval(measured.interval)}{' ~' if is_wide(measured.interval) else ''}"
    )


def crossover_text(record: Record) -> str | None:
    """Say from which length on the student's attention is faster than softmax attention, None when unknown."""
    length, reason = record.crossover_length, record.crossover_reason
    if length is None:
        return f"crossover length: {reason}" if reason else None
    batch_size = min(point.batch_size for point in record.speed)
    return f"the student's attention overtakes softmax at about {length:,} tokens (batch {batch_size})"


def memory_cells(record: Record) -> Table:
    """One row per batch x length: peak memory of teacher and student."""
    rows, notes = [], []
    for point in record.memory:
        teacher, student = point.teacher_mb, point.student_mb
        if point.reason:
            notes.append(f"batch {point.batch_size}, {point.length:,} tokens: {point.reason}")
        ratio = MISSING if not teacher or not student else f"{teacher / student:.2f}×"
        sizes = (megabytes(value) for value in (teacher, student))
        rows.append((f"{point.batch_size}", f"{point.length:,}", *sizes, ratio))
    return Table(
        "Peak memory of a forward pass, beside the weights",
        ("batch", "tokens", "teacher", "student", "saving"),
        tuple(rows),
        tuple(notes),
    )


def _width(point: SpeedPoint) -> str:
    return "" if point.width_speedup is None else f" ({point.width_speedup:.2f}×)"


def deployment_cells(metrics: Metrics, deployments: Sequence[DeploymentEntry]) -> Table:
    """One row per deployment, below the student in torch: metrics, size, largest difference of a logit.

    ``metrics`` are those of the student in torch.
    """
    rows, notes = [], []
    if deployments:
        scores = [metric_text(name, value) for name, value in metrics.items()]
        rows.append(("torch float32", *scores, *[NOT_APPLICABLE] * 4))
    for deployment in deployments:
        scores = [metric_text(name, (deployment.metrics or {}).get(name)) for name in metrics]
        parity, both = deployment.parity, (deployment.retention, deployment.teacher_retention)
        rows.append(
            (
                f"{deployment.format} {deployment.dtype} ({deployment.file})",
                *scores,
                *(percent_interval((kept or {}).get(next(iter(metrics), ""))) for kept in both),
                megabytes(deployment.megabytes),
                MISSING if parity is None else f"{parity:.1e}",
            )
        )
        if deployment.fp32_layers:
            notes.append(f"in fp32 in {deployment.file}, found on held-out train: {', '.join(deployment.fp32_layers)}")
    scores = [metric_label(name) for name in metrics]
    headers = (
        "student as",
        *scores,
        "kept of torch [95 %]",
        "kept of the teacher",
        "file size",
        "largest difference of a logit",
    )
    return Table("Deployments", headers, tuple(rows), tuple(notes))


def deployment_speed_cells(deployments: Sequence[DeploymentEntry]) -> Table:
    """One row per deployment x batch x length: both times and their ratio with its interval."""
    rows, notes = [], []
    for deployment in deployments:
        name = f"{deployment.format} {deployment.dtype}"
        for point in deployment.speed:
            if point.speedup is None:
                notes.append(f"{name}, batch {point.batch_size}, {point.length:,} tokens: {point.reason}")
            mark = " ~" if is_wide(point.interval) else ""
            times = (milliseconds(value) for value in (point.student_ms, point.deployed_ms))
            speedup = speedup_interval(point.interval)
            threads = NOT_APPLICABLE if point.threads is None else f"{point.threads}"
            rows.append((name, threads, f"{point.batch_size}", f"{point.length:,}{mark}", *times, speedup))
    if any(row[3].endswith("~") for row in rows):
        notes.append("~ interval wider than 20 %: the machine was busy or noisy")
    headers = ("student as", "threads", "batch", "tokens", "in torch", "deployed", "torch / deployed [95 %]")
    return Table("Latency of the deployments", headers, tuple(rows), tuple(notes))


# ---------------------------------------------------------------- instead of the student


def alternative_cells(record: Record) -> Table:
    """One row per alternative below the student: metric, retention with interval, size, and speed at each length.

    Where speeds were also measured on one thread, rows of these speeds follow.
    """
    name, alternatives = record.main_metric, record.alternatives
    lengths = sorted({point.length for alternative in alternatives for point in alternative.speed})
    rows, notes = [], []
    if alternatives:
        own = (
            metric_text(name, model_metrics(record, "student").get(name)),
            percent_interval(record.retention.get(name)),
        )
        rows.append(("student", *own, NOT_APPLICABLE, *_student_times(alternatives, lengths)))
        notes += _explanation(record)
    for alternative in alternatives:
        rows.append(
            (
                alternative.name,
                metric_text(name, (alternative.metrics or {}).get(name)),
                percent_interval((alternative.retention or {}).get(name)),
                NOT_APPLICABLE if alternative.format == "torch" else megabytes(alternative.megabytes),
                *_times(alternative.usual_speed, lengths),
            )
        )
        notes += _reasons(alternative)
    rows += _on_one_thread(alternatives, lengths)
    headers = ("instead of the student", metric_label(name), f"retention of {metric_label(name)}", "file size")
    return Table(
        "Alternatives", (*headers, *(f"at {length:,} tokens" for length in lengths)), tuple(rows), tuple(notes)
    )


def _on_one_thread(alternatives: Sequence[AlternativeEntry], lengths: Sequence[int]) -> list[tuple[str, ...]]:
    """Return rows of speeds alone, of those that were also measured on more threads."""
    both = [each for each in alternatives if len(each.thread_counts) > 1]
    if not both:
        return []
    named = [
        ("student", _student_times(both, lengths, 1)),
        *((each.name, _times(each.speed_on(1), lengths)) for each in both),
    ]
    return [(f"{name}, one thread", *[NOT_APPLICABLE] * 3, *times) for name, times in named]


def _student_times(
    alternatives: Sequence[AlternativeEntry], lengths: Sequence[int], threads: int | None = None
) -> list[str]:
    """Return the student's speeds, from the same rounds; without a number those on the usual threads."""
    found: dict[int, float] = {}
    for alternative in alternatives:
        points = alternative.usual_speed if threads is None else alternative.speed_on(threads)
        found |= {
            length: point.teacher_ms / point.student_ms
            for length, point in points.items()
            if point.teacher_ms and point.student_ms
        }
    return [_in_times(found.get(length)) for length in lengths]


def _times(points: Mapping[int, AlternativePoint], lengths: Sequence[int]) -> list[str]:
    return [_in_times(points[length].speedup) if length in points else MISSING for length in lengths]


def _in_times(speedup: float | None) -> str:
    return MISSING if speedup is None else f"{speedup:.2f}×"


def _explanation(record: Record) -> list[str]:
    """Say against what and where speeds were measured, and which length is that of the user's own texts."""
    measured = (point for each in record.alternatives for point in each.speed if point.speedup is not None)
    first = next(measured, None)
    if first is None:
        return []
    median = record.median_length
    own = f"; the median of the texts is about {median:,} tokens" if median else ""
    return [f"at … tokens: times as fast as the teacher in torch, batch {first.batch_size}{own}"]


def _reasons(alternative: AlternativeEntry) -> list[str]:
    """Explain what could not be measured: once where it is the whole alternative."""
    if alternative.reason:
        return [f"{alternative.name}: {alternative.reason}"]
    missing = [point for point in alternative.speed if point.speedup is None]
    several = len(alternative.thread_counts) > 1
    return [
        f"{alternative.name}{', one thread' if several and point.threads == 1 else ''}, {point.length:,} tokens: "
        f"{point.reason}"
        for point in missing
    ]
