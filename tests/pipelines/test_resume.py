"""A run that was killed and started again ends exactly as one that was not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from safetensors.torch import load_file

MOMENTS = {
    "teacher before its first checkpoint": "config.yaml",
    "teacher after a checkpoint": "checkpoints/teacher/step-*/manifest.json",
    "teacher saved but not marked": "teacher/model.safetensors",
    "first stage": "checkpoints/layers/step-*/manifest.json",
    "between the stages": "checkpoints/layers/result.json",
    "second stage, after its best epoch": "checkpoints/logits/best-epoch-*.safetensors",
    "baseline": "checkpoints/baseline/step-*/manifest.json",
    "comparison": "checkpoints/baseline/result.json",
    "report": "record.json",
}


def assert_same_end(one: Path, other: Path, histories: Callable) -> None:
    """Compare weights, logits, loss histories and record of two runs, bit by bit."""
    for model in ("teacher", "student", "baseline"):
        weights, expected = (load_file(run / model / "model.safetensors") for run in (one, other))
        assert set(weights) == set(expected)
        different = [name for name in expected if not weights[name].equal(expected[name])]
        assert different == [], f"{model}: {different}"
    assert histories(one) == histories(other)
    predictions, expected = (pandas.read_parquet(run / "predictions.parquet") for run in (one, other))
    for role in ("teacher", "student", "baseline"):
        left, right = (np.stack(frame[f"{role}_logits"].to_list()) for frame in (predictions, expected))
        assert np.array_equal(left, right), role
    record, expected = (json.loads((run / "record.json").read_text()) for run in (one, other))
    for key in ("models", "retention", "agreement"):
        assert record[key] == expected[key]


def test_two_undisturbed_runs_are_equal(finished, tiny, tmp_path: Path, histories) -> None:
    """Without this the comparisons below would mean nothing."""
    assert tiny.run(tmp_path / "run").returncode == 0
    assert_same_end(tmp_path / "run", finished.folder, histories)


@pytest.mark.slow
def test_killed_in_every_phase_of_one_run(finished, tiny, tmp_path: Path, histories) -> None:
    """One run that is killed again and again, each time one phase later."""
    run_dir = tmp_path / "run"
    killed = [
        moment for moment, pattern in MOMENTS.items() if tiny.kill_when(tiny.start(run_dir), run_dir, pattern)[0]
    ]
    assert len(killed) >= 6, killed  # a fast machine may get past a moment before it is seen
    done = tiny.run(run_dir)
    assert done.returncode == 0, done.stderr
    assert_same_end(run_dir, finished.folder, histories)


@pytest.mark.slow
def test_torn_checkpoint_is_skipped(finished, tiny, tmp_path: Path, histories) -> None:
    """The checkpoint before a torn one is used, with a warning, and the end is the same."""
    run_dir = tmp_path / "run"
    assert tiny.kill_when(tiny.start(run_dir), run_dir, "checkpoints/logits/step-00000012/manifest.json")[0]
    newest = max((run_dir / "checkpoints" / "logits").glob("step-*"))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = tiny.run(run_dir)
    assert done.returncode == 0, done.stderr
    assert f"{newest.name} is torn" in done.stderr
    assert_same_end(run_dir, finished.folder, histories)
