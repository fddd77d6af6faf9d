"""The stages of a record as pictures: fidelity of the layers, the metric after each stage, losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distill.evaluation.record import Record, model_metrics
from distill.reporting.formatting import metric_label, metric_text
from distill.reporting.plot_style import BASELINE, LABEL_BOX, STUDENT, TEACHER, percent_axis
from distill.reporting.record_tables import fidelity_by_layer

MAX_LAYER_TICKS = 12
NOT_LOSSES = ("step", "learning_rate", "examples_per_second")
LossHistory = Mapping[str, Sequence[Mapping[str, float]]]


def fidelity(record: Record) -> Figure | None:
    """Draw per-layer fidelity, attention output and hidden states, one bar per stage in every student layer."""
    stages = [stage for stage in record.stages if fidelity_by_layer(stage)]
    if not stages:
        return None
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("attention_output", "hidden_states"), strict=True):
        _fidelity_panel(axes, [(stage.name, fidelity_by_layer(stage, kind)) for stage in stages])
        axes.set_title(f"{kind.replace('_', ' ').capitalize()} of each layer")
    panels[0].set_ylabel("teacher's variance explained")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(stages)))
    return figure


def _fidelity_panel(axes: Axes, stages: Sequence[tuple[str, list[float]]]) -> None:
    width = 0.8 / len(stages)
    shades = matplotlib.colormaps["Blues"]
    layers = max(1, *(len(values) for _, values in stages))
    for index, (name, values) in enumerate(stages):
        places = [layer + 1 + (index - (len(stages) - 1) / 2) * width for layer in range(len(values))]
        color = shades(0.4 + 0.45 * index / max(1, len(stages) - 1))
        axes.bar(places, [max(0.0, value) for value in values], width * 0.92, color=color, label=f"after {name}")
        # How far below 0 a layer lies would only flatten the layers worth comparing.
        below = [place for place, value in zip(places, values, strict=True) if value < 0]
        axes.plot(below, [0.03] * len(below), color=color, marker="x", mew=2, ms=7, ls="")
    axes.set_xlim(0.4, layers + 0.6)
    axes.set_ylim(0, 1)
    percent_axis(axes.yaxis)
    axes.set_xticks(range(1, layers + 1, -(-layers // MAX_LAYER_TICKS)))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("student layer (1 = next to the embeddings)")


def metric_after_stages(record: Record) -> Figure | None:
    """Draw what each stage bought: the main metric after every stage, between the baseline and the teacher."""
    name = record.main_metric
    scored: list[tuple[str, Any]] = [(stage.name, (stage.metrics or {}).get(name)) for stage in record.stages]
    scored = [(stage, value) for stage, value in scored if value is not None]
    if not scored:
        return None
    figure = Figure(figsize=(max(7.2, 1.3 * len(scored)), 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(len(scored)), [value for _, value in scored], color=STUDENT, marker="o", ms=8, label="student")
    for place, (_, value) in enumerate(scored):
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9.5}
        axes.annotate(metric_text(name, value), (place, value), (0, 10), bbox=LABEL_BOX, zorder=4, **style)
    for model, color, line in (("teacher", TEACHER, "-"), ("baseline", BASELINE, "--")):
        value = model_metrics(record, model).get(name)
        if value is not None:
            label = f"{'teacher' if model == 'teacher' else 'labels alone'} ({metric_text(name, value)})"
            axes.axhline(value, color=color, ls=line, lw=1.3, label=label)
    axes.set_xticks(range(len(scored)), [stage for stage, _ in scored])
    axes.set_xlabel("after stage")
    axes.set_xlim(-0.5, len(scored) - 0.5)
    axes.margins(y=0.2)
    axes.grid(visible=False, axis="x")
    if metric_text(name, 1.0).endswith("%"):
        percent_axis(axes.yaxis)
    axes.set_ylabel(metric_label(name))
    axes.set_title("What each stage bought")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def losses(history: LossHistory) -> Figure | None:
    """Draw the raw loss curves, one panel per stage."""
    stages = {stage: lines for stage, lines in history.items() if lines}
    if not stages:
        return None
    columns = min(2, len(stages))
    rows = -(-len(stages) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.4 * rows), layout="constrained")
    for place, (stage, lines) in enumerate(stages.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for name in lines[0]:
            if name not in NOT_LOSSES and not name.endswith("_weighted"):
                axes.plot([line["step"] for line in lines], [line[name] for line in lines], lw=1.4, label=name)
        axes.set_title(stage)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("optimiser step of the stage")
        axes.set_ylabel("loss (unweighted)")
        axes.legend(fontsize=9)
    return figure
