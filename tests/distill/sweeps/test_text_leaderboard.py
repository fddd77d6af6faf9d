"""The leaderboard of language models: the best loss first, means over seeds, curves, and runs that failed."""

import json
from dataclasses import replace

import pytest

from distill.evaluation.record_parts import Interval
from distill.evaluation.text_record import (
    SCHEMA,
    LanguageModelEntry,
    LossCurve,
    TextRecord,
    TrainingStep,
    read_text_record,
    write_text_record,
)
from distill.sweeps.text_leaderboard import text_cells, write_text_leaderboard
from distill.utils.errors import UserError

NOBODY = LanguageModelEntry(None, None, None, None, "there is no such model in this run")


def record(loss, seed=42, attention="linear", length=128):
    metrics = {"loss": loss, "perplexity": 2.0**loss, "bits_per_character": 1.4 * loss}
    return TextRecord(
        schema=SCHEMA,
        task="text",
        model="causal",
        text_unit="byte",
        vocabulary=261,
        max_length=length,
        split="validation",
        num_examples=10,
        num_tokens=1280,
        characters_per_token=1.0,
        unknown_share=0.0,
        train_tokens=5000,
        unigram_loss=3.2,
        main_metric="bits_per_character",
        seed=seed,
        models={"teacher": NOBODY, "student": LanguageModelEntry(metrics, 1000, 2, attention), "baseline": NOBODY},
        retention={},
        baseline_retention={},
        stages=(),
        curves={"student": LossCurve((100, 200), (5.0, loss))},
        steps=(TrainingStep("student", length, 4, 12.5, 12.0, 13.0, 40.0),),
        environment={},
        data_name="book",
    )


def test_the_best_loss_is_first_and_seeds_are_means(tmp_path):
    runs = {("text", "worse"): [record(2.5)], ("text", "better"): [record(2.0), record(2.2, seed=43)]}
    cells = text_cells(runs)
    assert [row[0] for row in cells.rows] == ["better", "worse"]
    assert cells.rows[0][4:6] == ("2", "2.100")
    page = write_text_leaderboard(runs, {"text-broken-seed42": "it ended"}, tmp_path)
    assert page == tmp_path / "leaderboard.html"
    assert (tmp_path / "plots" / "curves.png").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["text-better"]["metrics"]["loss"] == pytest.approx(2.1)
    assert (tmp_path / "leaderboard.csv").read_text().splitlines()[1].startswith("better,")
    assert "text-broken-seed42" in (tmp_path / "leaderboard.md").read_text()


def test_the_summary_has_teacher_and_text_alone_where_there_are_such_models(tmp_path):
    alone = record(2.5)
    found = {"loss": Interval(0.9, 0.8, 1.0)}
    distilled = replace(
        record(2.0),
        models=alone.models | {"teacher": record(1.8).models["student"], "baseline": alone.models["student"]},
        retention=found,
    )
    write_text_leaderboard({("text", "alone"): [alone], ("text", "distilled"): [distilled]}, {}, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["text-alone"]["teacher"] is None
    assert summary["text-distilled"]["teacher"]["loss"] == pytest.approx(1.8)
    assert summary["text-distilled"]["text_alone"]["loss"] == pytest.approx(2.5)
    assert summary["text-distilled"]["retention"] == {"loss": {"value": 0.9, "low": 0.8, "high": 1.0}}


def test_nothing_at_all_is_a_page_too(tmp_path):
    write_text_leaderboard({}, {"one": "it ended"}, tmp_path)
    assert "it ended" in (tmp_path / "leaderboard.md").read_text()


def test_a_record_is_read_as_it_was_written_and_no_other_is(tmp_path):
    given = replace(record(2.0), retention={"loss": Interval(0.9, 0.8, 1.0)})
    write_text_record(given, tmp_path / "record.json")
    assert read_text_record(tmp_path) == given
    (tmp_path / "record.json").write_text('{"task": "sst2", "schema": 1}')
    with pytest.raises(UserError, match="no record of task text"):
        read_text_record(tmp_path)
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(UserError, match="not whole JSON"):
        read_text_record(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_text_record(tmp_path / "nothing")
