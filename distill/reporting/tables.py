"""From ``record.json`` to table cells with units: the one place that decides how a number is written.

Terminal, markdown, HTML and the model card all print these cells, so a number reads the same everywhere.
"""

from dataclasses import dataclass
from typing import Any

from distill.evaluation.record import MODELS, Record

MISSING = "n/a"
NOT_APPLICABLE = "-"
METRIC_LABELS = {
    "matthews_correlation": "MCC",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
    "f1": "F1",
    "macro_f1": "macro F1",
    "accuracy_mismatched": "accuracy (mismatched)",
}


@dataclass(frozen=True)
class Table:
    """One table: every row has as many cells as there are headers; ``notes`` explain gaps and marks below it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def metric_label(name: str) -> str:
    """Name a metric as people write it."""
    return METRIC_LABELS.get(name, name.replace("_", " "))


def percent(value: float | None) -> str:
    """Write a fraction as a percentage with one decimal; None is ``n/a``."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def metric_text(name: str, value: float | None) -> str:
    """Write a metric: shares as a percentage with one decimal, correlations (MCC among them) with three."""
    if value is None:
        return MISSING
    return percent(value) if name.startswith("accuracy") or name.endswith("f1") else f"{value:.3f}"


def gain_interval(metric: str, gain: dict[str, float] | None) -> str:
    """Write a difference of scores: of shares in points, ``+13.2 [10.9, 15.5]``, of correlations to three digits."""
    if gain is None:
        return MISSING
    shares = metric_text(metric, 0.0).endswith("%")
    value, low, high = (100 * gain[end] if shares else gain[end] for end in ("value", "low", "high"))
    digits = 1 if shares else 3
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def percent_interval(entry: dict[str, Any] | None) -> str:
    """Write ``{value, low, high}`` as ``97.5 % [95.9, 99.1]``."""
    if entry is None or entry.get("value") is None:
        return MISSING
    if entry.get("low") is None or entry.get("high") is None:
        return percent(entry["value"])
    return f"{percent(entry['value'])} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"


def speedup_interval(point: dict[str, Any]) -> str:
    """Write the speedup of one measured point as ``2.13× [2.06, 2.20]``."""
    if point.get("speedup") is None:
        return MISSING
    if point.get("low") is None or point.get("high") is None:
        return f"{point['speedup']:.2f}×"
    return f"{point['speedup']:.2f}× [{point['low']:.2f}, {point['high']:.2f}]"


def quantity(value: float | None, unit: str = "") -> str:
    """Write a large count with a thousands, millions or billions prefix and three digits."""
    if value is None:
        return MISSING
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


def milliseconds(value: float | None) -> str:
    """Write a time in milliseconds with three digits."""
    if value is None:
        return MISSING
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} ms"


def megabytes(value: float | None) -> str:
    """Write a memory size in MB (10⁶ bytes), small ones with a decimal."""
    return MISSING if value is None else f"{value:,.{0 if value >= 10 else 1}f} MB"


def duration(seconds: float | None) -> str:
    """Write a wall-clock time as ``12 s``, ``6 min 52 s`` or ``2 h 05 min``."""
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def model_metrics(record: Record, model: str) -> dict[str, float | None]:
    """Return the metrics of one model, empty where it was not compared."""
    return (record["models"].get(model) or {}).get("metrics") or {}


def share_of_teacher(record: Record, model: str) -> float | None:
    """Return the model's main metric divided by the teacher's, None where that has no meaning."""
    name = record["main_metric"]
    teacher, other = model_metrics(record, "teacher").get(name), model_metrics(record, model).get(name)
    return None if other is None or not teacher or teacher < 0 else other / teacher


def dataset(record: Record) -> str:
    """Name the data so that the miniature of a task is never taken for the task itself."""
    return f"embedded miniature {record['task']}" if record.get("source") == "embedded" else record["task"]


def model_cells(record: Record) -> Table:
    """One row per model: every metric by its name, retention with interval, agreement, size, depth, attention."""
    metrics = list(model_metrics(record, "teacher"))
    retained = [name for name in metrics if name in record["retention"]]
    is_regression = "williams" in record
    headers = (
        "model",
        *(metric_label(name) for name in metrics),
        *(f"retention of {metric_label(name)}" for name in retained),
        "Pearson with teacher" if is_regression else "agrees with teacher",
        "parameters",
        "layers",
        "attention",
        f"compute / {record['models']['teacher'].get('flops_length', 128)} tokens",
    )
    rows, notes = [], _retention_notes(record, retained)
    for model in MODELS:
        entry = record["models"].get(model)
        if not entry or entry.get("metrics") is None:
            notes.append(f"{model}: {(entry or {}).get('reason') or 'not compared'}")
            continue
        scores = [metric_text(name, entry["metrics"].get(name)) for name in metrics]
        retention = [_retention_text(record, model, name) for name in retained]
        agreement = metric_text("pearson" if is_regression else "accuracy", record.get("agreement"))
        size = (
            quantity(entry.get("parameters")),
            str(entry.get("layers") or MISSING),
            entry.get("attention") or MISSING,
        )
        agreement = agreement if model == "student" else NOT_APPLICABLE
        rows.append((model, *scores, *retention, agreement, *size, quantity(entry.get("flops"), "FLOP")))
    examples = f"{record['split']} split, {record['num_examples']:,} examples"
    title = f"Teacher against student on {dataset(record)}, {examples}"
    if windows := record["models"]["teacher"].get("windows"):
        notes.append(
            f"the teacher reads {percent(windows['share_of_texts'])} of the texts in windows of {windows['tokens']} "
            "tokens; its logits are their mean"
        )
    if linear := record.get("linear_form"):
        notes.append(_linear_form_note(record, linear))
    if "baseline" in (row[0] for row in rows):
        notes.append("baseline = the student's architecture trained on labels alone")
    return Table(title, headers, tuple(rows), tuple(notes))


def _linear_form_note(record: Record, linear: Record) -> str:
    """Say what a student that attends short texts exactly answers by its mechanism alone."""
    name = record["main_metric"]
    score, kept = metric_text(name, linear["metrics"].get(name)), percent_interval(linear["retention"].get(name))
    alike = linear.get("agreement")
    same = "" if alike is None else f", {percent(alike)} of the answers are the same"
    return f"the student's mechanism alone, in short texts too: {metric_label(name)} {score}, {kept} kept{same}"


def _retention_text(record: Record, model: str, name: str) -> str:
    key = {"student": "retention", "baseline": "baseline_retention"}.get(model)
    return percent_interval((record.get(key) or {}).get(name)) if key else NOT_APPLICABLE


def _retention_notes(record: Record, names: list[str]) -> list[str]:
    """Explain the intervals, name what is missing, and add the tests of teacher against student."""
    notes = ["retention = student / teacher, with its 95 % interval (paired bootstrap over examples)"] if names else []
    for name in names:
        entry = record["retention"][name]
        if entry.get("value") is None or entry.get("low") is None:
            notes.append(f"retention of {metric_label(name)}: {entry.get('reason') or 'could not be measured'}")
    if test := record.get("mcnemar"):
        notes.append(
            f"right where the other is wrong: teacher {test['only_teacher']:,}, student {test['only_student']:,} "
            f"(McNemar's exact p = {test['p']:.2g})"
        )
    for name, test in (record.get("williams") or {}).items():
        said = test["reason"] if test["p"] is None else f"t = {test['t']:.2f}, p = {test['p']:.2g}"
        notes.append(f"equal {metric_label(name)} of teacher and student (Williams' test): {said}")
    if record.get("kl_to_teacher") is not None:
        notes.append(
            f"mean KL divergence of the student's predictions from the teacher's: {record['kl_to_teacher']:.3f} nats"
        )
    errors = {model: (record["models"].get(model) or {}).get("calibration_error") for model in MODELS}
    known = [f"{model} {percent(error)}" for model, error in errors.items() if error is not None]
    return [*notes, f"expected calibration error: {', '.join(known)}"] if known else notes


def stage_cells(record: Record) -> Table:
    """One row per stage: its time, its speed, the metrics after it and the mean attention fidelity."""
    stages = record.get("stages") or []
    names = list(dict.fromkeys(name for stage in stages for name in stage.get("metrics") or {}))
    rows = []
    for stage in stages:
        rate = stage.get("examples_per_second")
        fidelity = fidelity_by_layer(stage)
        rows.append(
            (
                stage["name"],
                *(metric_text(name, (stage.get("metrics") or {}).get(name)) for name in names),
                percent(sum(fidelity) / len(fidelity)) if fidelity else MISSING,
                duration(stage.get("seconds")),
                MISSING if rate is None else f"{rate:,.0f} / s",
            )
        )
    headers = ("after stage", *(metric_label(name) for name in names), "attention fidelity", "time", "examples")
    return Table("What each stage bought", headers, tuple(rows))


def fidelity_by_layer(stage: dict[str, Any], kind: str = "attention_output") -> list[float]:
    """Return one stage's fidelity of ``kind`` per student layer, first layer first; empty where it was not measured.

    Fidelity is the share of the teacher layer's variance that the student layer explains, at most 1.
    """
    return [layer[kind] for layer in stage.get("fidelity") or [] if layer.get(kind) is not None]


def environment_cells(record: Record) -> Table:
    """One row per fact of the environment, nested facts written with dots."""
    rows: list[tuple[str, str]] = [("seed", str(record.get("seed")))]
    pending = list((record.get("environment") or {}).items())
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, dict):
            pending = [(f"{name}.{key}", inner) for key, inner in value.items()] + pending
        else:
            rows.append((name, MISSING if value is None else str(value)))
    return Table("Environment", ("", ""), tuple(rows))
