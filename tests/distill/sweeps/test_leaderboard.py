"""The leaderboard: the front, a named metric in every cell, the same numbers in csv, markdown and page."""

import copy
import csv
import io
from itertools import combinations

import pytest

from distill.evaluation.pareto import pareto_front
from distill.sweeps import leaderboard


def make_summary(score: float, speedup: float, metric: str = "accuracy", seeds: int = 3) -> dict:
    kept = {"value": score / 0.9, "low": score / 0.9 - 0.02, "high": score / 0.9 + 0.01}
    values = {
        role: {"mean": mean, "sd": 0.01, "min": mean - 0.01, "max": mean + 0.01}
        for role, mean in (("teacher", 0.9), ("student", score), ("baseline", 0.7))
    }
    spread = {"mean": score / 0.9, "sd": 0.012, "min": score / 0.9 - 0.01, "max": score / 0.9 + 0.01}
    values["retention"] = {"mean_of_ratios": kept, "ratio_of_averages": kept, "by_seed": [kept] * seeds, **spread}
    values["gain"] = {"value": score - 0.7, "low": score - 0.72, "high": score - 0.69}
    point = {"device": "cpu", "dtype": "float32", "batch_size": 1, "length": 128}
    return {
        **{"task": "sst2", "split": "validation", "num_examples": 872, "source": "hub"},
        **{"main_metric": metric, "seeds": list(range(seeds)), "resamples": 100},
        **{"parameters": 17_400_000, "kl_to_teacher": 0.0625},
        "metrics": {metric: values},
        "speed": [point | {"speedup": speedup, "low": speedup - 0.05, "high": speedup + 0.05}],
    }


@pytest.fixture
def summaries():
    return {
        ("sst2", "three"): make_summary(0.85, 2.0),
        ("sst2", "six"): make_summary(0.89, 1.0),
        ("sst2", "bad"): make_summary(0.80, 1.5),
        ("cola", "six"): make_summary(0.4, 1.0, "matthews_correlation"),
    }


def test_front():
    places = {"a": (1.0, 0.9), "b": (2.0, 0.8), "c": (1.5, 0.7), "d": (2.0, 0.8), "e": (1.0, 0.85)}
    assert pareto_front(places) == ["a", "b", "d"]
    assert pareto_front({}) == []


def test_fronts_of_each_task(summaries):
    assert leaderboard.fronts(summaries) == {"sst2": ["six", "three"], "cola": ["six"]}
    assert leaderboard.front_sentences(summaries)[0] == (
        "On the front of sst2: three (2.00×, 94.4 % of accuracy), six (1.00×, 98.9 % of accuracy)."
    )


def test_every_score_is_named_and_the_best_stands_first(summaries):
    cells = leaderboard.leaderboard_cells(summaries)
    assert [row[:2] for row in cells.rows] == [
        ("cola", "six *"),
        ("sst2", "six *"),
        ("sst2", "three *"),
        ("sst2", "bad"),
    ]
    assert cells.rows[0][3] == "0.900 MCC"
    assert cells.rows[1][3:9] == (
        "90.0 % accuracy",
        "89.0 % accuracy",
        "70.0 % accuracy",
        "98.9 % [96.9, 99.9] of accuracy",
        "98.9 % [96.9, 99.9] of accuracy",
        "± 1.2 % (97.9 to 99.9)",
    )
    assert [row[9] for row in cells.rows[:2]] == ["-0.300 [-0.320, -0.290]", "+19.0 [17.0, 20.0]"]
    for row in cells.rows:
        assert all(cell.endswith(("MCC", "accuracy")) for cell in row[3:8])
    assert "speedup at 128 tokens, batch 1, on cpu" in cells.notes


def test_what_a_student_gains_over_the_reference(summaries):
    """A column that is there only where a reference was named, in the unit of the metric, empty for the reference."""
    assert "over the reference" not in leaderboard.leaderboard_cells(summaries).headers
    summaries["sst2", "six"]["over_reference"] = {"value": 0.04, "low": 0.02, "high": 0.07}
    cells = leaderboard.leaderboard_cells(summaries)
    at = cells.headers.index("over the reference")
    assert [row[at] for row in cells.rows] == ["n/a", "+4.0 [2.0, 7.0]", "n/a", "n/a"]
    assert [row[at + 1] for row in cells.rows] == ["0.062"] * 4
    rows = list(csv.DictReader(io.StringIO(leaderboard.leaderboard_csv(summaries))))
    assert [row["over_reference_low"] for row in rows] == ["", "0.02", "", ""]
    summaries["sst2", "six"]["metrics"]["f1"] = summaries["sst2", "six"]["metrics"]["accuracy"]
    rows = list(csv.DictReader(io.StringIO(leaderboard.leaderboard_csv(summaries))))
    assert [row["metric"] for row in rows if row["over_reference_low"]] == ["accuracy"]  # it was measured of no other
    assert {row["kl_to_teacher"] for row in rows} == {"0.0625"}


def test_what_could_not_be_measured_has_no_place_in_the_front(summaries):
    summaries["sst2", "three"]["speed"] = []
    summaries["sst2", "bad"]["metrics"]["accuracy"]["retention"]["mean_of_ratios"] = dict.fromkeys(
        ("value", "low", "high")
    )
    assert leaderboard.fronts(summaries)["sst2"] == ["six"]
    rows = {row[1]: row for row in leaderboard.leaderboard_cells(summaries).rows}
    assert rows["three"][-2] == "n/a"
    assert rows["bad"][6] == "n/a of accuracy"
    assert leaderboard.draw_front(summaries) is not None


def test_a_wide_speedup_is_marked(summaries):
    summaries["sst2", "three"]["speed"][0] |= {"low": 1.5}
    cells = leaderboard.leaderboard_cells(summaries)
    assert [row[-2].endswith("~") for row in cells.rows] == [False, False, True, False]
    assert any(note.startswith("~") for note in cells.notes)


def test_the_picture_shows_one_point_per_student(summaries):
    axes = leaderboard.draw_front(summaries).axes
    assert [panel.get_title("left") for panel in axes] == ["sst2", "cola"]
    assert [text.get_text() for text in axes[0].texts] == ["teacher", "six", "three", "bad"]
    assert [panel.get_ylabel() for panel in axes] == ["retention of accuracy", "retention of MCC"]
    assert leaderboard.draw_front({}) is None


def test_names_in_the_picture_do_not_overprint():
    """Of many students in one place the front and as many others as there is room for are named."""
    crowd = {("sst2", f"student_{index}"): make_summary(0.85 + index / 1000, 2.0) for index in range(20)}
    figure = leaderboard.draw_front(crowd | {("sst2", "fast"): make_summary(0.8, 3.0)})
    texts = figure.axes[0].texts
    assert {"teacher", "fast", "student_19"} <= {text.get_text() for text in texts}
    assert len(texts) < 22
    boxes = [text.get_window_extent() for text in texts]
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))


def test_files(summaries, tmp_path):
    page = leaderboard.write_leaderboard(summaries, {"sst2-x-seed1": "out of <memory>"}, tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"summary.json", "leaderboard.csv", "leaderboard.md", "leaderboard.html", "plots/front.png"}
    source = page.read_text()
    assert "data:image/png;base64," in source
    assert "http" not in source
    for text in (source, (tmp_path / "leaderboard.md").read_text()):
        assert "98.9 % [96.9, 99.9] of accuracy" in text.replace("\N{NO-BREAK SPACE}", " ")
        assert "sst2-x-seed1" in text
    assert "out of &lt;memory&gt;" in source
    rows = list(csv.DictReader(io.StringIO((tmp_path / "leaderboard.csv").read_text())))
    three = next(row for row in rows if row["student"] == "three")
    assert float(three["mean_of_ratios_low"]) == pytest.approx(0.85 / 0.9 - 0.02)
    assert (three["metric"], three["speedup"], three["on_front"]) == ("accuracy", "2.0", "True")


def test_the_verdict_stands_first(summaries, tmp_path):
    for name, high in (("three", 1.01), ("six", 1.02)):
        summaries["sst2", name]["metrics"]["accuracy"]["retention"]["mean_of_ratios"]["high"] = high
    sst2, cola = leaderboard.verdict_sentences(summaries)
    assert sst2 == (
        "On sst2 take three, the fastest of the 2 students that keep up with the teacher: "
        "94.4 % [92.4, 101.0] of accuracy kept, 2.00× [1.95, 2.05] as fast at 128 tokens."
    )
    assert cola.startswith(
        "On cola no student keeps up with its teacher; six comes closest: 44.4 % [42.4, 45.4] of MCC"
    )
    text = leaderboard.write_leaderboard(summaries, {}, tmp_path).with_suffix(".md").read_text()
    assert text.index("take three") < text.index("On the front") < text.index("## Students")


def test_a_verdict_without_speed_names_the_best(summaries):
    for name in ("three", "six", "bad"):
        summaries["sst2", name]["speed"] = []
        summaries["sst2", name]["metrics"]["accuracy"]["retention"]["mean_of_ratios"]["high"] = 1.1
    sentence = leaderboard.verdict_sentences(summaries)[0]
    assert sentence.startswith("On sst2 take six, the best of the 3 students")
    assert sentence.endswith("98.9 % [96.9, 110.0] of accuracy kept.")


def test_of_those_that_keep_up_none_was_timed(summaries):
    """The closest student of all may still be told apart from its teacher."""
    for name, high in (("three", 1.01), ("six", 0.995), ("bad", 0.9)):
        summaries["sst2", name]["speed"] = []
        summaries["sst2", name]["metrics"]["accuracy"]["retention"]["mean_of_ratios"]["high"] = high
    assert leaderboard.verdict_sentences(summaries)[0].startswith("On sst2 take three, the one student that keeps up")


def test_no_absolute_path(summaries, tmp_path, monkeypatch):
    """Neither that of the sweep, nor of its data, nor of the benchmark."""
    monkeypatch.chdir(tmp_path)
    failures = {"sst2-x-seed1": f"data.dir: there is no folder {tmp_path}/glue/sst2; see https://example.org/a/b"}
    page = leaderboard.write_leaderboard(summaries, failures, tmp_path / "sweep")
    for file in (page, page.with_suffix(".md"), page.with_suffix(".csv"), page.parent / "summary.json"):
        assert str(tmp_path) not in file.read_text()
    assert "there is no folder …/sst2; see https://example.org/a/b" in page.read_text()


def test_one_seed_has_one_retention(summaries):
    alone = {("sst2", "six"): make_summary(0.89, 1.0, seeds=1)}
    headers = leaderboard.leaderboard_cells(alone).headers
    assert [header for header in headers if header.startswith("retention")] == ["retention, mean of ratios"]


def test_nothing_but_failures_is_still_a_page(tmp_path):
    source = leaderboard.write_leaderboard({}, {"run": "reason"}, tmp_path).read_text()
    assert "Failed runs" in source
    assert "<img" not in source


def test_the_miniature_is_named(summaries):
    summary = copy.deepcopy(summaries["sst2", "six"]) | {"source": "embedded"}
    assert leaderboard.leaderboard_cells({("sst2", "six"): summary}).rows[0][0] == "sst2 (embedded miniature)"


def test_a_baseline_that_was_not_trained_has_no_metric():
    summary = make_summary(0.85, 2.0)
    summary["metrics"]["accuracy"]["baseline"] = dict.fromkeys(("mean", "sd", "min", "max"))
    summary["metrics"]["accuracy"]["gain"] = None
    (row,) = leaderboard.leaderboard_cells({("sst2", "three"): summary}).rows
    assert row[3:6] == ("90.0 % accuracy", "85.0 % accuracy", "n/a")


def test_few_examples_are_said_and_intervals_without_ends_are_shown(summaries, tmp_path):
    few = summaries["cola", "six"]
    few["num_examples"] = 20
    kept = {"value": 1.0, "low": None, "high": None, "reason": "no resample differs"}
    few["metrics"]["matthews_correlation"]["retention"] |= {"mean_of_ratios": kept, "ratio_of_averages": kept}
    few["metrics"]["matthews_correlation"]["gain"] = kept
    cells = leaderboard.leaderboard_cells(summaries)
    assert cells.rows[0][6:8] == ("100.0 % of MCC", "100.0 % of MCC")
    notes = [note for note in cells.notes if "too few" in note]
    assert notes == ["cola: 20 validation examples are too few: these intervals are not to be trusted"]
    assert "too few" in leaderboard.write_leaderboard(summaries, {}, tmp_path).read_text()
    rows = list(csv.DictReader(io.StringIO(leaderboard.leaderboard_csv(summaries))))
    assert next(row["mean_of_ratios_low"] for row in rows) == ""
