"""What teacher and student answered as pictures: confusion matrices, or scores against the true ones."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from distill.evaluation.record import Record, model_metrics
from distill.reporting.answers import MAX_CLASSES, ROLES, Answers, confusion_counts, label_counts, shown_name
from distill.reporting.formatting import metric_label, metric_text
from distill.reporting.plot_style import STUDENT, TEACHER, percent_axis

LONGEST_TICK = 16
"""Characters of a class name at an axis."""
DARK = 0.55
"""Share of a row from which a field is so dark that its number is white."""
FADE = 400
"""Points from which a scatter is drawn fainter the more points it has."""


def confusion_matrices(record: Record, answers: Answers | None) -> Figure | None:
    """Draw which class got which answer, teacher and student side by side.

    None for scores, for many classes and for labels that a text may have several of.
    """
    if answers is None or answers.task.is_regression or answers.task.multi_label:
        return None
    if answers.task.num_labels > MAX_CLASSES:
        return None
    size = answers.task.num_labels
    width = max(3.6, 0.62 * size + 1.6)
    figure = Figure(figsize=(2 * width, width), layout="constrained")
    names = [_tick(name, index) for index, name in enumerate(answers.task.label_names)]
    for axes, role in zip(figure.subplots(1, 2, sharey=True), ROLES, strict=True):
        _matrix(axes, confusion_counts(answers, role))
        upright = size > 2 and max(map(len, names)) > 40 // size
        axes.set_xticks(range(size), names, rotation=45 if upright else 0, ha="right" if upright else "center")
        axes.set_yticks(range(size), names)
        axes.set_xlabel("answer")
        axes.set_title(_title(record, role))
        if role == ROLES[0]:
            axes.set_ylabel("class")
    return figure


def _matrix(axes: Axes, counts: np.ndarray) -> None:
    """Draw one (C, C) matrix: counts and their share of the row, the darker the larger the share."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    axes.imshow(shares, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=1)
    with_shares = len(counts) <= 6
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:,}\n{100 * shares[row, column]:.0f} %" if with_shares else f"{count:,}"
        color = "white" if shares[row, column] > DARK else "#1a202c"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=11 if with_shares else 9)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _tick(name: str, index: int) -> str:
    """Return a class name for an axis; its place in label order where the font lacks a letter of it."""
    known = get_font(findfont(FontProperties())).get_charmap()
    shown = shown_name(name, LONGEST_TICK)
    return shown if all(ord(letter) in known for letter in shown) else f"class {index + 1}"


def f1_by_label(record: Record, answers: Answers | None) -> Figure | None:
    """Draw the F1 of every label, teacher above student; of many labels those that occur most.

    None where a text has one class or a score.
    """
    if answers is None or not answers.task.multi_label:
        return None
    counts = {role: label_counts(answers, role) for role in ROLES}
    present = counts["teacher"].present
    shown = np.arange(len(present))
    if len(shown) > MAX_CLASSES:
        shown = np.sort(np.argsort(-present, kind="stable")[:MAX_CLASSES])
    figure = Figure(figsize=(7.2, 0.55 * len(shown) + 1.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shown))
    for role, color, shift in zip(ROLES, (TEACHER, STUDENT), (-0.2, 0.2), strict=True):
        axes.barh(places + shift, np.nan_to_num(counts[role].f1[shown]), 0.38, color=color, label=_title(record, role))
    names = [f"{_tick(answers.task.label_names[index], int(index))} ({present[index]:,})" for index in shown]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    percent_axis(axes.xaxis)
    axes.set_xlabel("F1 (behind the label: its examples)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.6 / len(shown)), ncols=2)
    return figure


def scores_against_labels(record: Record, answers: Answers | None) -> Figure | None:
    """Draw every score of teacher and student against the true one; None for classes."""
    if answers is None or not answers.task.is_regression:
        return None
    labels = answers.labels()
    given = {role: answers.given(role) for role in ROLES}
    everything = np.concatenate([labels, *given.values()])
    margin = 0.04 * max(float(np.ptp(everything)), 1e-6)
    low, high = everything.min() - margin, everything.max() + margin
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    for axes, role, color in zip(figure.subplots(1, 2, sharey=True), ROLES, (TEACHER, STUDENT), strict=True):
        axes.plot([low, high], [low, high], color="#a0aec0", lw=1, ls="--")
        faint = min(0.6, 0.6 * (FADE / len(labels)) ** 0.5)
        axes.scatter(labels, given[role], s=14, color=color, alpha=faint, linewidths=0)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="label")
        axes.set_title(_title(record, role))
        if role == ROLES[0]:
            axes.set_ylabel("answer")
    return figure


def _title(record: Record, role: str) -> str:
    name = record.main_metric
    score = model_metrics(record, role).get(name)
    return role if score is None else f"{role}, {metric_label(name)} {metric_text(name, score)}"
