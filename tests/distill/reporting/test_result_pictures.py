"""Pictures of the pages carry the mark of what they were drawn from."""

import json

import pytest
from matplotlib import rc_context

from distill.reporting.plot_style import STYLE
from distill.reporting.result_pictures import PICTURES, is_up_to_date, language_models, render_picture
from distill.reporting.result_records import Records


@pytest.fixture
def records(tmp_path):
    """Two runs of one depth, one of another whose steps were not timed."""
    folder = tmp_path / "records" / "language_models"
    folder.mkdir(parents=True)
    curve = {"tokens": [1000, 2000, 4000], "loss": [3.0, 2.5, 2.25]}

    def run(attention, layers, length):
        return {"attention": attention, "layers": layers, "max_length": length, "curve": curve}

    runs = {"a": run("softmax", 4, 128), "b": run("linear", 4, 2048), "c": run("linear", 2, 128)}
    points = [
        {"model": name, "layers": 4, "length": length, "milliseconds": 100.0}
        for name, length in (("softmax", 128), ("linear", 2048))
    ]
    (folder / "summary.json").write_text(json.dumps(runs))
    (folder / "steps.json").write_text(json.dumps({"points": points, "batch_tokens": 1000}))
    return Records(tmp_path / "records")


def lines(figure):
    """Title of a panel to the points of its lines."""
    return {axes.get_title(): [line.get_xydata().tolist() for line in axes.get_lines()] for axes in figure.axes}


def test_every_run_is_drawn_in_the_panel_of_its_depth_and_length(records):
    found = lines(language_models(records, "tokens"))
    assert list(found) == [
        f"{layers} layers, {length} tokens" for layers in (2, 4) for length in ("128", "512", "2,048")
    ]
    assert found["4 layers, 128 tokens"] == [[[1000, 3.0], [2000, 2.5], [4000, 2.25]]]
    assert len(found["2 layers, 128 tokens"]) == len(found["4 layers, 2,048 tokens"]) == 1
    assert found["4 layers, 512 tokens"] == []


def test_the_ticks_of_an_axis_of_counts_can_be_read(records):
    """Formulas are written as they are in our pictures, so that matplotlib's own ticks would read $10^5$."""
    with rc_context(STYLE):
        figure = language_models(records, "tokens")
        figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[3].get_xticklabels(which="both")]
    assert {"1k"} <= set(labels)
    assert not any("$" in label for label in labels)


def test_against_time_a_step_counts_as_long_as_it_takes_alone(records):
    found = lines(language_models(records, "time"))
    assert list(found) == [f"4 layers, {length} tokens" for length in ("128", "512", "2,048")]
    assert [x for x, _ in found["4 layers, 128 tokens"][0]] == pytest.approx([0.1, 0.2, 0.4])


def test_a_picture_is_up_to_date_until_its_records_change(records, tmp_path):
    picture = next(iter(PICTURES.values()))
    path = tmp_path / "picture.png"
    assert not is_up_to_date(path, picture, records)
    path.write_bytes(render_picture(picture, records))
    assert is_up_to_date(path, picture, records)
    summary = records.folder / "language_models" / "summary.json"
    summary.write_text(summary.read_text().replace("2.25", "2.26"))
    assert not is_up_to_date(path, picture, Records(records.folder))
    path.write_bytes(b"no picture")
    assert not is_up_to_date(path, picture, records)


def test_without_records_there_is_nothing_to_draw(tmp_path):
    for picture in PICTURES.values():
        assert render_picture(picture, Records(tmp_path)) is None
