"""Where a stage stands, read from checkpoints of this and of earlier versions."""

from dataclasses import asdict

import pytest

from distill.training.progress import Progress, epoch_score


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
