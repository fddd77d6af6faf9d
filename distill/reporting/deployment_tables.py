"""The deployments of a record as table cells: what each kept, its size, and its latency against torch."""

from distill.evaluation.record import Record
from distill.reporting.measurement_tables import is_wide
from distill.reporting.tables import (
    MISSING,
    NOT_APPLICABLE,
    Table,
    megabytes,
    metric_label,
    metric_text,
    milliseconds,
    model_metrics,
    speedup_interval,
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
