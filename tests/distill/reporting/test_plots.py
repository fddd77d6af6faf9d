"""Pictures: which are drawn for which record, that they are PNGs, repeatable, and leave matplotlib alone."""

from itertools import pairwise

import matplotlib
import pytest
from helpers.records import sample_json, typed

from distill.reporting.plot_style import png
from distill.reporting.plots import draw_plots, retention_against_speedup, speed_by_length
from distill.reporting.training_plots import fidelity, losses, metric_after_stages

ALWAYS = {"retention_speedup.png", "speed_by_length.png", "memory_by_length.png", "fidelity.png", "stages.png"}


@pytest.fixture
def record():
    return sample_json()


def test_every_picture_of_a_full_record(record):
    history = {"attention": [{"step": 10, "learning_rate": 1e-3, "attention_output": 0.5}], "logits": []}
    before = dict(matplotlib.rcParams)
    plots = draw_plots(typed(record), history)
    assert set(plots) == ALWAYS | {"losses.png"}
    assert all(content.startswith(b"\x89PNG\r\n\x1a\n") for content in plots.values())
    assert dict(matplotlib.rcParams) == before


def test_the_same_record_gives_the_same_bytes(record):
    assert draw_plots(typed(record)) == draw_plots(typed(record))


def test_a_record_without_numbers_draws_nothing(record):
    record |= {"speed": [], "memory": [], "stages": [], "crossover_length": None}
    assert draw_plots(typed(record)) == {}


def test_nulls_are_left_out(record):
    record["models"]["baseline"]["metrics"] = None
    record["memory"][0] |= {"teacher_mb": None, "student_mb": None, "reason": "no fresh process"}
    record["stages"][0] |= {"metrics": None, "fidelity": None}
    record["retention"]["accuracy"] |= {"low": None, "high": None, "reason": "too few examples"}
    for point in record["speed"]:
        point |= {"depth_speedup": None, "attention_speedup": None, "low": None, "high": None}
    assert set(draw_plots(typed(record))) == ALWAYS


def test_retention_picture_shows_the_record(record):
    axes = retention_against_speedup(typed(record)).axes[0]
    assert axes.get_ylabel() == "retention of accuracy"
    lengths = [text.get_text() for text in axes.texts]
    assert lengths == ["32", "128", "512", "2048", "32", "128", "512"]
    low, high = axes.get_ylim()
    assert low < 100 * 0.8314 / 0.9163 < 100 < high


def test_speed_is_log_log_and_the_crossover_stands_in_the_smallest_batch_only(record):
    figure = speed_by_length(typed(record))
    times = figure.axes[:2]
    assert all(axes.get_xscale() == axes.get_yscale() == "log" for axes in times)
    assert [any("crossover" in text.get_text() for text in axes.texts) for axes in times] == [True, False]


@pytest.mark.parametrize("factor", [0.0005, 0.05, 0.98, 1.0, 1.02, 40.0])
def test_axes_have_ticks_for_any_range(record, factor):
    for point in record["speed"]:
        if point["speedup"] is not None:
            point |= {name: point[name] * factor for name in ("speedup", "low", "high")}
    axes = retention_against_speedup(typed(record)).axes[0]
    assert 2 <= len(axes.get_xticks()) <= 8


def test_one_stage_of_a_regression(record):
    record["main_metric"] = "pearson"
    record["retention"]["pearson"] = record["retention"]["accuracy"]
    for model in record["models"].values():
        model["metrics"]["pearson"] = 0.5
    record["stages"] = [record["stages"][0] | {"metrics": {"pearson": -0.1}}]
    figure = metric_after_stages(typed(record))
    assert figure.axes[0].texts[0].get_text() == "-0.100"


def test_a_layer_below_the_mean_is_a_cross_and_not_a_clipped_bar(record):
    record["stages"][0]["fidelity"][2]["hidden_states"] = -40.0
    attention, hidden = fidelity(typed(record)).axes
    assert attention.get_ylim() == (0, 1)
    assert all(bar.get_height() >= 0 for bar in hidden.patches)
    crosses = [list(line.get_xdata()) for line in hidden.lines if line.get_marker() == "x"]
    assert [round(place) for places in crosses for place in places] == [3]
    assert not any(len(line.get_xdata()) for line in attention.lines if line.get_marker() == "x")


def test_hidden_states_that_were_not_measured_leave_a_panel_without_bars(record):
    for stage in record["stages"]:
        for layer in stage["fidelity"] or []:
            layer["hidden_states"] = None
    attention, hidden = fidelity(typed(record)).axes
    assert attention.patches
    assert not hidden.patches


@pytest.mark.parametrize("layers", [1, 3, 24])
def test_layers_are_whole_numbers_from_1(record, layers):
    layer = record["stages"][0]["fidelity"][0]
    for stage in record["stages"]:
        stage["fidelity"] = [layer | {"layer": place} for place in range(layers)]
    ticks = list(fidelity(typed(record)).axes[0].get_xticks())
    assert ticks[0] == 1
    assert all(tick == int(tick) and 1 <= tick <= layers for tick in ticks)
    assert len(ticks) <= 12


def test_every_point_lies_inside_the_picture_and_close_lengths_share_a_label(record):
    first, second = record["speed"][:2]
    first |= {"speedup": 2.0, "low": 1.9, "high": 2.1}
    second |= {"speedup": 2.02, "low": 1.9, "high": 9.0}
    axes = retention_against_speedup(typed(record)).axes[0]
    low, high = axes.get_xlim()
    assert low < 1.0
    assert high > 9.0
    assert axes.texts[0].get_text() == f"{first['length']}, {second['length']}"


def box(text):
    return text.get_window_extent()


def test_tick_labels_of_stages_do_not_overprint(record):
    names = ("depth", "depth_logits", "transfer", "layers", "logits", "another_long_name")
    record["stages"] = [record["stages"][0] | {"name": name} for name in names]
    figure = metric_after_stages(typed(record))
    png(figure)
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == list(names)
    boxes = [box(label) for label in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_only_raw_losses_are_drawn():
    line = {"step": 1, "learning_rate": 1.0, "logits": 0.4, "logits_weighted": 0.2, "examples_per_second": 9.0}
    axes = losses({"logits": [line, line | {"step": 2}]}).axes[0]
    assert [curve.get_label() for curve in axes.lines] == ["logits"]


def test_a_panel_for_every_stage():
    line = {"step": 1, "logits": 0.4}
    figure = losses({"teacher": [line], "attention": [line], "logits": [line], "baseline": []})
    assert [axes.get_title() for axes in figure.axes] == ["teacher", "attention", "logits"]
