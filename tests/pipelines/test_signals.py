"""SIGTERM and Ctrl-C: one line, the exit code a shell expects, and a run that goes on as if nothing had been."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.first_step import first_step

pytestmark = pytest.mark.slow

TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node", "2")
IN_THE_LOOP = "checkpoints/layers/step-*/manifest.json"
OUTSIDE = "checkpoints/baseline/result.json"
HOW_TO_GO_ON = "stopped by {}; the same command goes on from what was saved"


def signal_when(process, run_dir: Path, pattern: str, number: signal.Signals) -> tuple[str, str]:
    """Send the signal as soon as a path of the run folder exists; return stdout and stderr."""
    while process.poll() is None and not any(run_dir.glob(pattern)):
        time.sleep(0.002)
    os.kill(process.pid, number)
    return process.communicate(timeout=120)


@pytest.mark.parametrize(
    ("number", "code", "pattern"), [(signal.SIGTERM, 143, IN_THE_LOOP), (signal.SIGINT, 130, OUTSIDE)]
)
def test_one_line_the_exit_code_and_the_same_end(number, code, pattern, finished, tiny, tmp_path, same_end) -> None:
    run_dir = tmp_path / "run"
    process = tiny.start(run_dir)
    _, errors = signal_when(process, run_dir, pattern, number)
    assert process.returncode == code, errors
    assert errors.splitlines().count(HOW_TO_GO_ON.format(number.name)) == 1
    assert "Traceback" not in errors
    done = tiny.run(run_dir)
    assert done.returncode == 0, done.stderr
    assert "teacher outputs" in errors
    assert "teacher outputs" not in done.stderr  # those on the disk are used again
    assert ("layers:" in done.stdout) == (pattern == IN_THE_LOOP)  # a finished stage stays finished
    if pattern == IN_THE_LOOP:
        assert first_step(done.stderr, "layers") > 0
    same_end(run_dir, finished.folder)


def test_several_processes_save_together(tiny, without_chance, tmp_path: Path, same_losses, histories) -> None:
    run_dir = tmp_path / "run"
    config = ("--config", str(without_chance.config))
    process = tiny.start(run_dir, *config, launcher=TORCHRUN)
    _, errors = signal_when(process, run_dir, IN_THE_LOOP, signal.SIGTERM)
    assert process.returncode != 0  # torchrun's own
    assert errors.splitlines().count(HOW_TO_GO_ON.format("SIGTERM")) == 1, errors
    saved = max(run_dir.glob("checkpoints/layers/step-*/random_states_1.pkl")).parent
    done = tiny.run(run_dir, *config, launcher=2)
    assert done.returncode == 0, done.stderr
    assert f"step-{first_step(done.stderr, 'layers'):08d}" == saved.name
    same_losses(histories(without_chance.folder), histories(run_dir))
