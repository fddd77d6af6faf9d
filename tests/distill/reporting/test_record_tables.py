"""Numbers as text: units, intervals, gaps with their reasons, alignment, and the gate."""

import pytest
from helpers.records import sample_json, typed

from distill.evaluation.record_parts import Interval
from distill.reporting.formatting import duration, metric_text, milliseconds, percent_interval, quantity
from distill.reporting.measurement_tables import speed_cells
from distill.reporting.record_tables import (
    comparison_table,
    environment_cells,
    markdown_table,
    model_cells,
    stage_cells,
)
from distill.reporting.tables import escape_markdown, markdown_cells, text_table
from distill.reporting.verdict import parse_requirements, reference_point, unmet_requirements, verdict
from distill.utils.errors import UserError


@pytest.fixture
def record():
    return sample_json()


def without_baseline(record):
    record["models"]["baseline"] |= {"metrics": None, "reason": "no such model was given"}
    del record["baseline_retention"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.9163, "91.6 %"),
        ("accuracy_mismatched", 0.5, "50.0 %"),
        ("macro_f1", 1.0, "100.0 %"),
        ("micro_f1", 0.5, "50.0 %"),
        ("subset_accuracy", 0.5, "50.0 %"),
        ("matthews_correlation", 0.5234, "0.523"),
        ("pearson", -0.1, "-0.100"),
        ("accuracy", None, "n/a"),
    ],
)
def test_metric_text_writes_shares_in_percent_and_correlations_plain(name, value, text):
    assert metric_text(name, value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (950, "950"), (17_390_210, "17.4 M"), (2.93e9, "2.93 G"), (None, "n/a")]
)
def test_quantity(value, text):
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.50 ms"), (58.04, "58.0 ms"), (1660.4, "1,660 ms"), (None, "n/a")]
)
def test_milliseconds(value, text):
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (59.9, "1 min 00 s"), (412, "6 min 52 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_percent_interval():
    assert percent_interval(Interval(0.975, 0.9588, 0.9911)) == "97.5 % [95.9, 99.1]"
    assert percent_interval(Interval(0.975, None, None)) == "97.5 %"
    assert percent_interval(Interval(None, None, None)) == "n/a"


def test_model_rows_hold_the_record(record):
    cells = model_cells(typed(record))
    assert [row[0] for row in cells.rows] == ["teacher", "student", "baseline"]
    student = dict(zip(cells.headers, cells.rows[1], strict=True))
    assert student == {
        "model": "student",
        "accuracy": "89.3 %",
        "retention of accuracy": "97.5 % [95.9, 99.1]",
        "agrees with teacher": "93.8 %",
        "parameters": "17.4 M",
        "layers": "3",
        "attention": "performer",
        "compute / 128 tokens": "1.58 GFLOP",
    }
    assert dict(zip(cells.headers, cells.rows[2], strict=True))["retention of accuracy"] == "90.7 % [88.4, 93.0]"


def test_a_missing_baseline_is_said_and_not_shown(record):
    without_baseline(record)
    cells = model_cells(typed(record))
    assert [row[0] for row in cells.rows] == ["teacher", "student"]
    assert "baseline: no such model was given" in cells.notes


def test_a_retention_without_meaning_gives_its_reason(record):
    record["retention"]["accuracy"] = {"value": None, "low": None, "high": None, "reason": "the teacher scores 0"}
    assert "retention of accuracy: the teacher scores 0" in model_cells(typed(record)).notes
    assert "scores 89.3 % accuracy on sst2 (the teacher scores 0)" in verdict(typed(record))


def test_intervals_of_few_examples_are_not_to_be_trusted(record):
    assert not any("too few" in note for note in model_cells(typed(record)).notes)
    record["num_examples"] = 99
    note = "99 validation examples are too few: these intervals are not to be trusted"
    assert note in model_cells(typed(record)).notes


def test_every_score_stands_under_the_name_of_its_metric(record):
    for model in record["models"].values():
        model["metrics"]["f1"] = 0.5
    record["retention"]["f1"] = record["baseline_retention"]["f1"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    record["stages"][0]["metrics"] = {"accuracy": 0.5, "f1": 0.5}
    for cells in (model_cells(typed(record)), stage_cells(typed(record))):
        scored = [
            header for column, header in enumerate(cells.headers) if any("%" in row[column] for row in cells.rows)
        ]
        named = ("accuracy", "F1", "agrees with teacher", "attention fidelity")
        assert scored
        assert all(header.endswith(named) for header in scored), scored


def test_a_regression_names_its_correlations(record):
    del record["mcnemar"]
    record["williams"] = {"pearson": {"t": 2.345, "p": 0.0191}, "spearmanr": {"t": None, "p": None, "reason": "short"}}
    cells = model_cells(typed(record))
    assert dict(zip(cells.headers, cells.rows[1], strict=True))["Pearson with teacher"] == "0.938"
    assert "equal Pearson of teacher and student (Williams' test): t = 2.35, p = 0.019" in cells.notes
    assert "equal Spearman of teacher and student (Williams' test): short" in cells.notes


def test_the_mechanism_alone_is_said_where_short_texts_are_exact(record):
    name = record["main_metric"]
    assert not any("mechanism alone" in note for note in model_cells(typed(record)).notes)
    kept = {"value": 0.97, "low": 0.95, "high": 0.99}
    record["linear_form"] = {"metrics": {name: 0.8}, "retention": {name: kept}, "agreement": 0.985}
    (note,) = [note for note in model_cells(typed(record)).notes if "mechanism alone" in note]
    assert "80.0 %, 97.0 % [95.0, 99.0] kept, 98.5 % of the answers are the same" in note


def test_calibration_is_said(record):
    record["models"]["teacher"]["calibration_error"] = 0.031
    record["models"]["student"]["calibration_error"] = 0.052
    assert "expected calibration error: teacher 3.1 %, student 5.2 %" in model_cells(typed(record)).notes


def test_speed_on_the_own_texts_is_said(record):
    throughput = {"device": "cpu", "dtype": "float32", "batch_size": 32, "num_examples": 640}
    throughput |= {"tokens_per_example": 25.3, "padding": 0.061}
    throughput |= {"teacher_tokens_per_second": 12_345.0, "student_tokens_per_second": 24_690.0}
    record["throughput"] = throughput | {"speedup": 2.0, "low": 1.95, "high": 2.06}
    start = "on sst2's own texts, batch 32"
    note = f"{start} (25 tokens each, 6.1 % padding): teacher 12.3 k, student 24.7 k tokens/s, 2.00× [1.95, 2.06]"
    assert note in speed_cells(typed(record)).notes
    record["throughput"] |= {"low": 1.5}
    assert f"{note[:-12]}[1.50, 2.06] ~" in speed_cells(typed(record)).notes
    record["throughput"] |= {"speedup": None, "reason": "out of memory"}
    assert f"{start}: out of memory" in speed_cells(typed(record)).notes


def test_compiled_models_are_named(record):
    record["speed"][0]["compiled"] = True
    assert speed_cells(typed(record)).title == "Speed on cpu in float32, torch.compile"


def test_two_machines_get_a_column(record):
    record["speed"].append(record["speed"][0] | {"device": "cuda", "dtype": "bfloat16"})
    cells = speed_cells(typed(record))
    assert cells.headers[0] == "machine"
    assert cells.rows[-1][0] == "cuda bfloat16"


def test_stages_without_fidelity(record):
    record["stages"][0]["fidelity"] = None
    cells = stage_cells(typed(record))
    assert [row[2] for row in cells.rows] == ["n/a", "88.5 %"]


def test_environment_is_flattened_in_order(record):
    record["environment"] = {"torch": "2.13.0", "cpu": {"name": "x", "threads": None}, "end": 1}
    rows = environment_cells(typed(record)).rows
    assert rows == (("seed", "0"), ("torch", "2.13.0"), ("cpu.name", "x"), ("cpu.threads", "n/a"), ("end", "1"))


def test_text_table_is_aligned(record):
    lines = text_table(speed_cells(typed(record))).splitlines()
    body = lines[2 : 5 + len(record["speed"])]
    assert max(map(len, body)) == len(body[2])  # the rule is as wide as the widest row
    ends = {line.index("ms") for line in body[3:10]}
    assert len(ends) == 1  # the teacher's times end in the same column


def test_comparison_table_starts_with_the_verdict_and_fits_a_terminal(record):
    lines = comparison_table(typed(record)).splitlines()
    assert lines[0] == verdict(typed(record))
    assert max(map(len, lines[1:])) <= 120


def test_markdown_rows_have_one_width(record):
    rows = [line for line in markdown_cells(model_cells(typed(record))).splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "97.5 % [95.9, 99.1]" in markdown_table(typed(record))


def test_escape_markdown_leaves_no_markup():
    assert escape_markdown("a|b *c* <b>\n[x](http://y)") == r"a\|b \*c\* \<b\> [x]\(http://y)"


def test_verdict_says_everything(record):
    assert verdict(typed(record)) == (
        "The 3-layer performer student keeps 97.5 % [95.9, 99.1] of its teacher's accuracy on sst2. "
        "It runs 2.12× [2.06, 2.20] as fast at 128 tokens and batch 1 (cpu, float32), "
        "4.79× [4.64, 4.95] at 2,048 tokens (timing only: more than it has positions for). "
        "The same student trained on labels alone keeps 90.7 % [88.4, 93.0] of that accuracy."
    )


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.7, 0.9, "SLOWER"), (0.95, 1.1, "cannot be told"), (1.1, 1.2, "as fast")]
)
def test_verdict_does_not_praise_a_slow_student(record, low, high, words):
    record["speed"] = [record["speed"][1] | {"speedup": (low + high) / 2, "low": low, "high": high}]
    assert words in verdict(typed(record))


def test_nothing_measured(record):
    record["speed"] = []
    without_baseline(record)
    assert reference_point(typed(record).speed) is None
    assert (
        verdict(typed(record))
        == "The 3-layer performer student keeps 97.5 % [95.9, 99.1] of its teacher's accuracy on sst2."
    )
    assert "Speed" not in comparison_table(typed(record))


def test_requirements_look_at_the_lower_end(record):
    record["speed"] = record["speed"][:3]
    assert unmet_requirements(typed(record), {"retention": 0.9588, "speedup": 1.7}) == []
    assert unmet_requirements(typed(record), {"retention": 0.96}) == [
        "retention of accuracy 97.5 % [95.9, 99.1]: lower end below 96.0 %"
    ]
    assert unmet_requirements(typed(record), {"speedup": 2.0}) == [
        "speedup at batch 1, 32 tokens 1.78× [1.73, 1.84]: lower end below 2×"
    ]


def test_what_could_not_be_measured_proves_nothing(record):
    assert len(unmet_requirements(typed(record), {"speedup": 1.0})) == 1  # the point that ran out of memory
    record["speed"] = []
    assert unmet_requirements(typed(record), {"speedup": 1.0}) == ["speedup: no speed was measured"]
    record["retention"]["accuracy"]["low"] = None
    assert len(unmet_requirements(typed(record), {"retention": 0.1})) == 1


def test_tests_and_noise_are_said(record):
    notes = "\n".join((*model_cells(typed(record)).notes, *speed_cells(typed(record)).notes))
    assert "teacher 37, student 17 (McNemar's exact p = 0.0091)" in notes
    assert "0.087 nats" in notes
    assert "the teacher against itself measured 1.00× [0.99, 1.01]" in notes
    for key in ("mcnemar", "kl_to_teacher", "noise"):
        record[key] = None
    notes = "\n".join((*model_cells(typed(record)).notes, *speed_cells(typed(record)).notes))
    assert not any(word in notes for word in ("McNemar", "nats", "itself"))


@pytest.mark.parametrize("text", ["speed=2", "retention", "retention=high", ""])
def test_requirements_that_cannot_be_read(text):
    with pytest.raises(UserError, match="--require"):
        parse_requirements(text)


def test_requirements_are_read():
    assert parse_requirements("retention=0.95,speedup=2") == {"retention": 0.95, "speedup": 2.0}


def test_the_miniature_of_a_task_is_never_called_the_task(record):
    assert "on embedded miniature sst2" in comparison_table(typed(record | {"source": "embedded"}))
    assert "miniature" not in comparison_table(typed(record | {"source": "folder"}))
