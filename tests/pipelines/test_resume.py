"""A run that goes on from a damaged checkpoint ends as one that was not stopped; ``make chaos`` does the killing."""

from pathlib import Path

import pytest
from helpers.first_step import first_step


def test_two_undisturbed_runs_are_equal(finished, tiny, tmp_path: Path, same_end) -> None:
    """Without this the comparisons below would mean nothing."""
    assert tiny.run(tmp_path / "run").returncode == 0
    same_end(tmp_path / "run", finished.folder)


@pytest.mark.slow
def test_torn_checkpoint_is_skipped(finished, tiny, tmp_path: Path, same_end) -> None:
    """The checkpoint before a torn one is used, with a warning, and the end is the same."""
    run_dir = tmp_path / "run"
    assert tiny.kill_when(tiny.start(run_dir), run_dir, "checkpoints/logits/step-00000012/manifest.json")[0]
    *_, before, newest = sorted((run_dir / "checkpoints" / "logits").glob("step-*"))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = tiny.run(run_dir)
    assert done.returncode == 0, done.stderr
    assert f"{newest.name} is torn" in done.stderr
    assert f"step-{first_step(done.stderr, 'logits'):08d}" == before.name
    same_end(run_dir, finished.folder)
