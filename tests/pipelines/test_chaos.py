"""A few kills at random moments, each compared bit by bit with a run that nobody killed; ``make chaos`` does fifty."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = 6


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    output = tmp_path / "chaos.json"
    options = ["--kills", str(KILLS), "--seed", "3", "--output", str(output)]
    done = subprocess.run(  # a process of its own, because it forks
        [sys.executable, str(ROOT / "tests" / "chaos.py"), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{KILLS} of {KILLS} runs ended bit-equal"
    result = json.loads(output.read_text())
    assert [run["equal"] for run in result["runs"]] == [True] * KILLS
    kinds = {run["kind"] for run in result["runs"]}
    assert kinds >= {"write", "time"}
    assert all(run["ended"] in ("SIGKILL", "SIGXFSZ") for run in result["runs"])
    assert all(run["ended"] == "SIGXFSZ" for run in result["runs"] if run["kind"] == "write")
    assert sum(hits > 0 for hits in result["phases"].values()) >= KILLS - 2
