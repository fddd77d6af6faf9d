"""The tables of a comparison: models, stages, environment; and all of them as text."""

from distill.evaluation.record import MODELS, Record, dataset, model_metrics
from distill.evaluation.record_parts import LinearForm, StageEntry
from distill.evaluation.text_record import TextRecord
from distill.reporting.formatting import (
    MISSING,
    NOT_APPLICABLE,
    duration,
    metric_label,
    metric_text,
    percent,
    percent_interval,
    quantity,
    variance_explained,
)
from distill.reporting.measurement_tables import alternative_cells, memory_cells, speed_cells
from distill.reporting.tables import Table, markdown_cells, text_table
from distill.reporting.verdict import verdict
from distill.tasks import FEW_EXAMPLES


def comparison_table(record: Record) -> str:
    """Return the record as readable text: verdict, models, alternatives, speed and, where measured, memory."""
    tables = [model_cells(record), alternative_cells(record), speed_cells(record), memory_cells(record)]
    return "\n\n".join([verdict(record), *(text_table(cells) for cells in tables if cells.rows)]) + "\n"


def markdown_table(record: Record) -> str:
    """Return the same tables as GitHub-flavoured markdown."""
    tables = [model_cells(record), alternative_cells(record), speed_cells(record), memory_cells(record)]
    return "\n\n".join([verdict(record), *(markdown_cells(cells) for cells in tables if cells.rows)]) + "\n"


def model_cells(record: Record) -> Table:
    """One row per model: every metric by its name, retention with interval, agreement, size, depth, attention."""
    metrics = list(model_metrics(record, "teacher"))
    retained = [name for name in metrics if name in record.retention]
    is_regression = record.williams is not None
    headers = (
        "model",
        *(metric_label(name) for name in metrics),
        *(f"retention of {metric_label(name)}" for name in retained),
        "Pearson with teacher" if is_regression else "agrees with teacher",
        "parameters",
        "layers",
        "attention",
        f"compute / {record.models.teacher.flops_length or 128} tokens",
    )
    rows, notes = [], _retention_notes(record, retained)
    for model in MODELS:
        entry = record.models[model]
        if entry.metrics is None:
            notes.append(f"{model}: {entry.reason or 'not compared'}")
            continue
        scores = [metric_text(name, entry.metrics.get(name)) for name in metrics]
        retention = [_retention_text(record, model, name) for name in retained]
        agreement = metric_text("pearson" if is_regression else "accuracy", record.agreement)
        size = (
            quantity(entry.parameters),
            str(entry.layers or MISSING),
            entry.attention or MISSING,
        )
        agreement = agreement if model == "student" else NOT_APPLICABLE
        rows.append((model, *scores, *retention, agreement, *size, quantity(entry.flops, "FLOP")))
    examples = f"{record.split} split, {record.num_examples:,} examples"
    title = f"Teacher against student on {dataset(record)}, {examples}"
    if windows := record.models.teacher.windows:
        notes.append(
            f"the teacher reads {percent(windows.share_of_texts)} of the texts in windows of {windows.tokens} "
            "tokens; its logits are their mean"
        )
    notes += _threshold_notes(record)
    if record.linear_form:
        notes.append(_linear_form_note(record, record.linear_form))
    if "baseline" in (row[0] for row in rows):
        notes.append("baseline = the student's architecture trained on labels alone")
    return Table(title, headers, tuple(rows), tuple(notes))


def _threshold_notes(record: Record) -> list[str]:
    """Say by which thresholds the models of a multi-label task answer, and what counts as an answer."""
    known = {model: record.models[model].threshold for model in MODELS}
    said = [f"{model} {threshold:g}" for model, threshold in known.items() if threshold is not None]
    if not said:
        return []
    return [
        f"a text has the labels whose probability reaches the threshold: {', '.join(said)} (chosen on held-out train)",
        "an answer is right, or the same as another, if all of its labels are",
    ]


def _linear_form_note(record: Record, linear: LinearForm) -> str:
    """Say what a student that attends short texts exactly answers by its mechanism alone."""
    name = record.main_metric
    score, kept = metric_text(name, linear.metrics.get(name)), percent_interval(linear.retention.get(name))
    alike = linear.agreement
    same = "" if alike is None else f", {percent(alike)} of the answers are the same"
    return f"the student's mechanism alone, in short texts too: {metric_label(name)} {score}, {kept} kept{same}"


def _retention_text(record: Record, model: str, name: str) -> str:
    kept = {"student": record.retention, "baseline": record.baseline_retention or {}}
    return percent_interval(kept[model].get(name)) if model in kept else NOT_APPLICABLE


def _retention_notes(record: Record, names: list[str]) -> list[str]:
    """Explain the intervals, name what is missing, and add the tests of teacher against student."""
    notes = ["retention = student / teacher, with its 95 % interval (paired bootstrap over examples)"] if names else []
    if names and record.num_examples < FEW_EXAMPLES:
        notes.append(f"{record.num_examples} validation examples are too few: these intervals are not to be trusted")
    for name in names:
        entry = record.retention[name]
        if entry.value is None or entry.low is None:
            notes.append(f"retention of {metric_label(name)}: {entry.reason or 'could not be measured'}")
    if test := record.mcnemar:
        notes.append(
            f"right where the other is wrong: teacher {test.only_teacher:,}, student {test.only_student:,} "
            f"(McNemar's exact p = {test.p:.2g})"
        )
    for name, equal in (record.williams or {}).items():
        said = equal.reason if equal.p is None else f"t = {equal.t:.2f}, p = {equal.p:.2g}"
        notes.append(f"equal {metric_label(name)} of teacher and student (Williams' test): {said}")
    if record.kl_to_teacher is not None:
        notes.append(
            f"mean KL divergence of the student's predictions from the teacher's: {record.kl_to_teacher:.3f} nats"
        )
    errors = {model: record.models[model].calibration_error for model in MODELS}
    known = [f"{model} {percent(error)}" for model, error in errors.items() if error is not None]
    return [*notes, f"expected calibration error: {', '.join(known)}"] if known else notes


def stage_cells(record: Record) -> Table:
    """One row per stage: its time, its speed, the metrics after it and the mean attention fidelity."""
    stages = record.stages
    names = list(dict.fromkeys(name for stage in stages for name in stage.metrics or {}))
    rows = []
    for stage in stages:
        rate = stage.examples_per_second
        fidelity = fidelity_by_layer(stage)
        rows.append(
            (
                stage.name,
                *(metric_text(name, (stage.metrics or {}).get(name)) for name in names),
                variance_explained(sum(fidelity) / len(fidelity)) if fidelity else MISSING,
                duration(stage.seconds),
                MISSING if rate is None else f"{rate:,.0f} / s",
            )
        )
    headers = ("after stage", *(metric_label(name) for name in names), "attention fidelity", "time", "examples")
    return Table("What each stage bought", headers, tuple(rows), unlabelled_notes(record))


def unlabelled_notes(record: Record) -> tuple[str, ...]:
    """Say how many texts without labels the stages read, if they did."""
    read = record.unlabelled
    if read is None:
        return ()
    return (
        f"the stages also read {read.texts:,} texts without labels ({read.tokens:,} tokens), labelled by the teacher: "
        f"{percent(read.share_of_stage_texts)} of all that they draw from",
    )


def fidelity_by_layer(stage: StageEntry, kind: str = "attention_output") -> list[float]:
    """Return one stage's fidelity of ``kind`` per student layer, first layer first; empty where it was not measured.

    Fidelity is the share of the teacher layer's variance that the student layer explains, at most 1.
    """
    return [value for layer in stage.fidelity or () if (value := getattr(layer, kind)) is not None]


def environment_cells(record: Record | TextRecord) -> Table:
    """One row per fact of the environment, nested facts written with dots."""
    rows: list[tuple[str, str]] = [("seed", str(record.seed))]
    pending = list(record.environment.items())
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, dict):
            pending = [(f"{name}.{key}", inner) for key, inner in value.items()] + pending
        else:
            rows.append((name, MISSING if value is None else str(value)))
    return Table("Environment", ("", ""), tuple(rows))
