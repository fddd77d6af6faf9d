"""The tables of the page on systems: they render from whatever records there are."""

import json
from pathlib import Path

import pytest

from distill.reporting.result_records import Records
from distill.reporting.result_systems import (
    MECHANISMS,
    klue_costs,
    klue_systems,
    long_pairs,
    long_pairs_costs,
    long_pairs_longer,
)

FIGURES = Path(__file__).resolve().parents[3] / "notebooks" / "records" / "published" / "systems.json"
ENVIRONMENT = {"cpu": "a processor", "threads": 1, "training_precision": "bf16", "commit": "0123456789"}


def cell(main_metric: str, seeds=(42,), **scores: tuple[float, float]) -> dict:
    """Return a cell of a summary, of metrics with the scores of baseline and student."""
    metrics = {
        name: {
            "teacher": {"mean": 0.9},
            "baseline": {"mean": alone},
            "student": {"mean": distilled},
            "retention": {"mean_of_ratios": {"value": distilled / 0.9, "low": 0.5, "high": 1.0}},
        }
        for name, (alone, distilled) in scores.items()
    }
    throughput = {"teacher_tokens_per_second": 100.0, "student_tokens_per_second": 200.0, "tokens_per_example": 10.0}
    more = {"training_seconds": 61.2, "throughput": throughput, "environment": ENVIRONMENT}
    return {"main_metric": main_metric, "seeds": list(seeds), "metrics": metrics, **more}


@pytest.fixture
def write(tmp_path):
    """Write a record and return all of the folder."""

    def write(name: str, content: dict) -> Records:
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        return Records(tmp_path)

    write("published/systems", json.loads(FIGURES.read_text()))
    return write


def row(lines: list[str], name: str) -> list[str]:
    (found,) = [line for line in lines if line.startswith(f"| {name} ")]
    return [part.strip() for part in found.strip("|").split("|")][1:]


def test_without_records_there_is_nothing_but_the_figures_of_others(write, tmp_path):
    records = Records(tmp_path)
    for render in (klue_systems, klue_costs, long_pairs, long_pairs_costs, long_pairs_longer):
        assert render(records)[-1] == "Not run yet: there is no record."
    for mechanism in MECHANISMS:
        assert set(row(klue_systems(records), f"`{mechanism}`")) == {"-"}
    assert row(klue_systems(records), "one answer for all")[:3] == ["33.3", "33.3", "-"]
    assert row(long_pairs(records), "`longformer`") == ["-"] * 10 + ["96.18, pretrained weights of its own"]


def test_a_later_record_of_more_seeds_takes_the_place_of_one_seed(write):
    once = {"abc": cell("accuracy", accuracy=(0.4, 0.5)), "knn": cell("accuracy", accuracy=(0.45, 0.3))}
    write("klue/summary", {f"klue_nli-{name}": found for name, found in once.items()})
    records = write("klue/seeds_nli", {"klue_nli-abc": cell("accuracy", (42, 43, 44), accuracy=(0.41, 0.51))})
    lines = klue_systems(records)
    assert row(lines, "`abc`") == ["41.0", "**51.0**", "-", "-", "-", "-", "3"]
    assert row(lines, "`knn`") == ["**45.0**", "30.0", "-", "-", "-", "-", "1"]
    assert lines[-1] == "On a processor, 1 thread, trained in bf16, commit 0123456. Seeds: 42, 43, 44."
    assert not any("TC" in line for line in lines)


def test_a_task_that_was_not_planned_joins_once_it_was_run(write):
    records = write("klue/summary", {"klue_tc-abc": cell("macro_f1", macro_f1=(0.4, 0.5))})
    assert "TC macro F1, distilled" in klue_systems(records)[0]
    records = write("long_pairs/summary", {"qnli-abc": cell("accuracy", accuracy=(0.6, 0.7))})
    assert "QNLI distilled" in long_pairs(records)[0]


def test_costs_are_forward_and_backward(write):
    point = {"megabytes": 1234.0, "milliseconds": 56.4}
    bench = {"attention": "knn", "student": [point], "training": [point | {"megabytes": None}]}
    records = write("klue/costs", {"rows": [bench], "environment": ENVIRONMENT})
    assert row(klue_costs(records), "`knn`") == ["1,234", "56", "-", "56"]
    records = write("long_pairs/costs", {"rows": [bench | {"attention": "abc"}], "environment": ENVIRONMENT})
    assert row(long_pairs_costs(records), "`abc`") == ["1,234", "56", "-", "56"]


def test_times_of_long_tasks(write):
    records = write("long_pairs/summary", {"imdb-softmax": cell("accuracy", accuracy=(0.6, 0.81))})
    lines = long_pairs(records)
    assert row(lines, "`softmax`")[:5] == ["60.0", "81.0", "90.0 [50.0, 100.0]", "61", "50.0"]
    assert row(lines, "teacher, softmax, six layers")[:5] == ["90.0", "-", "-", "-", "100.0"]


def test_longer_stages_have_rows_of_what_was_run(write):
    found = {"imdb-abc": cell("accuracy", accuracy=(0.6, 0.81)), "imdb-softmax": cell("accuracy", accuracy=(0.7, 0.8))}
    lines = long_pairs_longer(write("long_pairs/longer", found))
    assert row(lines, "`abc`") == ["60.0", "81.0", "90.0 [50.0, 100.0]"]
    assert [line.split("`")[1] for line in lines if "`" in line] == ["softmax", "abc"]
