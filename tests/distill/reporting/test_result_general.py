"""What students lose stage by stage, as the page says it."""

import json
from pathlib import Path

import pytest
from helpers.records import sample_json

from distill.reporting import result_general
from distill.reporting.result_general import student_stages
from distill.reporting.result_records import Records


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(result_general, "RUNS", {"one": "Performer"})
    run = sample_json()
    first = run["stages"][0]
    metric = run["main_metric"]
    run["stages"] = [
        first | {"name": "depth_logits", "metrics": {metric: 0.81}},
        first | {"name": "transfer", "metrics": {metric: 0.62}},
        first | {"name": "logits", "metrics": {metric: 0.79}},
    ]
    (tmp_path / "general").mkdir()
    (tmp_path / "general" / "one.json").write_text(json.dumps(run))
    return Records(tmp_path), run


def test_scores_stand_under_their_stages_and_a_stage_that_was_not_run_has_none(records):
    read, run = records
    row = [cell.strip() for cell in student_stages(read)[-1].strip("|").split("|")]
    end = 100 * run["models"]["student"]["metrics"][run["main_metric"]]
    assert row[1] == "Performer"
    assert row[3:7] == ["81.0", "62.0", "-", f"{end:.1f}"]
    assert row[-1].startswith(f"{100 * run['retention'][run['main_metric']]['value']:.1f} [")


def test_every_run_of_the_page_has_its_record():
    folder = Path(__file__).parents[3] / "notebooks" / "records" / "general"
    assert {f"{name}.json" for name in result_general.RUNS} <= {path.name for path in folder.iterdir()}
