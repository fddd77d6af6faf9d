"""The report of a run of task text: its tables and the curves of its losses."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from distill.evaluation.record_parts import Interval, Metrics
from distill.evaluation.text_record import LossCurve, TextRecord
from distill.reporting.formatting import MISSING
from distill.reporting.html_page import html_page
from distill.reporting.plot_style import STYLE, log_counts, png
from distill.reporting.record_tables import environment_cells
from distill.reporting.report import CAPTIONS, markdown_page
from distill.reporting.tables import Table, text_table, without_gaps
from distill.utils.files import write_atomically

CURVES = "curves.png"
LABELS = {"loss": "loss, nats", "perplexity": "perplexity", "bits_per_character": "bits / character"}


def number(value: float | None) -> str:
    """Return a metric with three decimals, large ones with fewer."""
    return MISSING if value is None else f"{value:.3f}" if value < 100 else f"{value:,.0f}"


def share(found: Interval | None) -> str:
    """Return a retention in percent with its interval."""
    if found is None or found.value is None:
        return MISSING
    ends = "" if found.low is None or found.high is None else f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"{100 * found.value:.1f} %{ends}"


def model_cells(record: TextRecord) -> Table:
    """Return what every model predicts and how large it is."""
    kept = {"student": record.retention, "baseline": record.baseline_retention}
    rows = [("every token by its frequency", number(record.unigram_loss), *[MISSING] * 3, MISSING, MISSING, MISSING)]
    for role, entry in record.models.items():
        if entry.metrics is None or entry.parameters is None:
            continue
        of_teacher = share(kept.get(role, {}).get("perplexity"))
        sizes = f"{entry.parameters / 1e6:.2f} M", str(entry.layers), str(entry.attention)
        rows.append((role, *(number(entry.metrics.get(name)) for name in LABELS), of_teacher, *sizes))
    headers = ("model", *LABELS.values(), "teacher / model, perplexity", "parameters", "layers", "attention")
    notes: tuple[str, ...] = ("lower is better; brackets: 95 % interval, paired bootstrap over windows",)
    if (alone := record.models.get("baseline")) is not None and alone.metrics is not None:
        notes += ("baseline = the student's architecture trained on the text alone",)
    said = {entry.note: role for role, entry in reversed(list(record.models.items())) if entry.note}
    notes += tuple(f"{role}: {note}" for note, role in said.items())
    if record.unknown_share > 0:
        notes += (f"{100 * record.unknown_share:.1f} % of the tokens are unknown, and predicted as such",)
    title = f"{record.data_name}: {record.split}, {record.num_tokens:,} tokens in windows of {record.max_length}"
    return Table(title, headers, tuple(rows), notes)


def step_cells(record: TextRecord) -> Table:
    """Return what a training step of every model costs."""
    rows = [
        (
            step.model,
            str(step.batch_size),
            str(step.length),
            MISSING if step.milliseconds is None else f"{step.milliseconds:.1f} [{step.low:.1f}, {step.high:.1f}]",
            MISSING if step.activation_megabytes is None else f"{step.activation_megabytes:,.0f}",
        )
        for step in record.steps
    ]
    headers = ("model", "batch", "tokens", "ms a step", "MB kept for the backward pass")
    return Table("A training step, measured apart", headers, tuple(rows))


def stage_cells(record: TextRecord) -> Table:
    """Return what every stage cost and bought."""
    rows = [(stage.name, _seconds(stage.seconds), *_values(stage.metrics)) for stage in record.stages]
    return Table("Stages", ("stage", "seconds", *LABELS.values()), tuple(rows))


def _values(metrics: Metrics | None) -> tuple[str, ...]:
    return tuple(number((metrics or {}).get(name)) for name in LABELS)


def _seconds(seconds: float | None) -> str:
    return MISSING if seconds is None else f"{seconds:,.0f}"


def draw_curves(curves: Mapping[str, LossCurve]) -> Figure | None:
    """Draw the training losses against the tokens seen."""
    shown = {name: curve for name, curve in curves.items() if curve.tokens}
    if not shown:
        return None
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, curve in shown.items():
        axes.plot(curve.tokens, curve.loss, lw=1.4, label=name)
    axes.set(xlabel="tokens seen", ylabel="training loss, nats a token", xscale="log")
    log_counts(axes.xaxis)
    axes.legend()
    return figure


def verdict(record: TextRecord) -> list[str]:
    """Return in sentences what the run found."""
    student = record.models["student"]
    metrics = student.metrics or {}
    name = record.main_metric.replace("_", " ")
    value = number(metrics.get(record.main_metric))
    said = f"The {student.layers}-layer {student.attention} student reaches {value} {name} on {record.data_name}"
    if record.retention:
        teacher = number((record.models["teacher"].metrics or {}).get(record.main_metric))
        kept = share(record.retention["perplexity"])
        said += f", its teacher {teacher}: in perplexity it keeps {kept}"
    loss = metrics.get("loss")
    doubt = []
    if loss is not None and loss >= record.unigram_loss:
        doubt = ["It predicts no better than the frequency of the tokens: it was trained too short, or not at all."]
    return [f"{said}.", *doubt]


def write_text_report(record: TextRecord, folder: Path) -> str:
    """Write ``report.md``, ``report.html`` and ``plots/`` into a run folder and return what a terminal shows."""
    with rc_context(STYLE):
        figure = draw_curves(record.curves)
        plots = {} if figure is None else {CURVES: png(figure)}
    tables = [(model_cells(record), list(plots)), (stage_cells(record), []), (step_cells(record), [])]
    shown = [(without_gaps(cells), names) for cells, names in tables]
    sections = [(cells, names) for cells, names in shown if cells.rows]
    tables_alone = [text_table(cells) for cells, _ in sections]
    sections.append((environment_cells(record), []))
    page = f"Language model report: {record.data_name}", verdict(record), sections
    for name, content in plots.items():
        write_atomically(folder / "plots" / name, content)
    write_atomically(folder / "report.md", markdown_page(*page))
    write_atomically(folder / "report.html", html_page(*page, plots, CAPTIONS))
    return "\n\n".join([*verdict(record), *tables_alone])
