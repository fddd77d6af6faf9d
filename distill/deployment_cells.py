"""The deployments of a record as table cells: what each kept, its size, and its latency against torch."""

from distill.cells import (
    MISSING,
    Cells,
    megabytes,
    metric_label,
    metric_text,
    milliseconds,
    model_metrics,
    speedup_interval,
)
from distill.record import Record


def deployment_cells(record: Record) -> Cells:
    """One row per deployment, below the student in torch: metrics, size, largest difference of a logit."""
    deployments = record.get("deployments") or []
    metrics = model_metrics(record, "student")
    rows = []
    if deployments:
        scores = [metric_text(name, value) for name, value in metrics.items()]
        rows.append(("torch float32", *scores, MISSING, MISSING))
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
    return Cells("Deployments", headers, tuple(rows))


def deployment_speed_cells(record: Record) -> Cells:
    """One row per deployment x batch x length: both times and their ratio with its interval."""
    rows, notes = [], []
    for deployment in record.get("deployments") or []:
        name = f"{deployment['format']} {deployment['dtype']}"
        for point in deployment["speed"]:
            if point["speedup"] is None:
                notes.append(f"{name}, batch {point['batch_size']}, {point['length']:,} tokens: {point['reason']}")
            times = (milliseconds(point[f"{which}_ms"]) for which in ("student", "deployed"))
            rows.append((name, f"{point['batch_size']}", f"{point['length']:,}", *times, speedup_interval(point)))
    headers = ("student as", "batch", "tokens", "in torch", "deployed", "torch / deployed [95 %]")
    return Cells("Latency of the deployments", headers, tuple(rows), tuple(notes))
