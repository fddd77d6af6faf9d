"""Where a stage stands, read from checkpoints of this and of earlier versions."""

import json
from dataclasses import asdict

import pytest

from distill.training.progress import Progress, epoch_score, state_problem


def test_a_checkpoint_of_today_is_read_as_it_was():
    progress = Progress()
    assert progress.end_epoch(0.4, {"f1": 0.9, "accuracy": 0.7})
    assert Progress.from_checkpoint(asdict(progress)) == progress


def test_the_best_epoch_of_an_earlier_version_is_scored_by_the_mean_of_its_metrics():
    """Its score was the main metric alone, which the mean of a later epoch must not be held against."""
    saved = asdict(Progress(epoch=1, best_epoch=1, best_score=0.9, held_out=[{"f1": 0.9, "accuracy": 0.7}]))
    del saved["is_score_mean"]
    progress = Progress.from_checkpoint(saved)
    assert progress.best_score == pytest.approx(0.8)
    assert progress.end_epoch(epoch_score({"f1": 0.88, "accuracy": 0.8}), {"f1": 0.88, "accuracy": 0.8})
    assert Progress.from_checkpoint(asdict(progress)) == progress


def saved_progress():
    progress = Progress(history=[{"step": 1, "labels": 0.5}], unlogged=[0.25])
    progress.end_epoch(0.4, {"f1": 0.9})
    return json.loads(json.dumps(asdict(progress)))


def test_what_is_written_can_be_gone_on_from():
    assert state_problem(saved_progress()) is None
    assert state_problem(json.loads(json.dumps(asdict(Progress())))) is None  # its best score is minus infinity
    old = {name: value for name, value in saved_progress().items() if not name.startswith("is_")}
    assert state_problem(old) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": 3}, "colour is unknown"),
        ({"epoch": "1"}, "epoch is text, not a whole number"),
        ({"step": 0.5}, "step is a number, not a whole number"),
        ({"best_score": None}, "best_score is null, not a whole number or a number"),
        ({"held_out": {"f1": 0.9}}, "held_out is an object, not a list"),
        ({"history": [1]}, "history[0] is a whole number, not an object"),
        ({"history": [{"labels": "0.5"}]}, "history[0].labels is text, not a whole number or a number"),
        ({"is_standardised": 1}, "is_standardised is a whole number, not true or false"),
        ({"best_epoch": 2}, "best_epoch is 2 of 1"),
        ({"best_epoch": -1}, "best_epoch is -1 of 1"),
    ],
)
def test_what_cannot_be_gone_on_from_is_named(change, problem):
    assert state_problem(saved_progress() | change) == problem


@pytest.mark.parametrize("name", sorted(saved_progress().keys() - {"is_score_mean", "is_standardised"}))
def test_a_field_that_is_missing_is_named(name):
    saved = saved_progress()
    del saved[name]
    assert state_problem(saved) == f"{name} is missing"
