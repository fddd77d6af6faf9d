"""Several machines: the shipped launcher file, started once for every machine, here on the loopback of one."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.first_step import first_step

pytestmark = pytest.mark.slow

MULTI_NODE = Path(__file__).resolve().parents[2] / "configs" / "accelerate" / "multi_node.yaml"
SECONDS = 250
"""For both machines to end: starting them takes most of it, and what waited for a dead one would take longer."""


def start_machines(tiny, folder: Path, *more: str) -> list:
    """Start the same command on two machines that differ in their rank alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("accelerate", "launch", "--config_file", str(MULTI_NODE), "--num_processes", "2")
    launcher += ("--main_process_ip", "127.0.0.1", "--main_process_port", str(port))
    return [tiny.start(folder, *more, launcher=(*launcher, "--machine_rank", str(rank))) for rank in (0, 1)]


def test_a_machine_is_lost_and_the_same_commands_go_on(
    tiny, without_chance, tmp_path: Path, histories: Callable, same_losses: Callable
) -> None:
    folder, settings = tmp_path / "run", ("--config", str(without_chance.config))
    first, second = start_machines(tiny, folder, *settings)
    killed, errors = tiny.kill_when(second, folder, "checkpoints/logits/step-*/manifest.json")
    assert killed, errors
    output, errors = first.communicate(timeout=SECONDS)
    assert first.returncode != 0, output
    newest = max(path.parent.name for path in folder.glob("checkpoints/logits/step-*/manifest.json"))
    assert not (folder / "checkpoints" / "logits" / "result.json").exists()

    machines = start_machines(tiny, folder, *settings)
    (output, errors), _ = [machine.communicate(timeout=SECONDS) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    assert f"step-{first_step(errors, 'logits'):08d}" == newest
    assert output.count("report: ") == 1  # the first machine alone speaks
    same_losses(histories(without_chance.folder), histories(folder))
