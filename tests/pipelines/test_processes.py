"""Two processes on one machine: the same losses as one, every example once, one writer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest

pytestmark = pytest.mark.slow

TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def shared_run(tiny, without_chance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run on two processes what ``without_chance`` ran on one."""
    folder = tmp_path_factory.mktemp("two") / "run"
    done = tiny.run(folder, "--config", str(without_chance.config), launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("teacher: accuracy") == 1  # only one process prints
    return folder


def test_same_losses_as_one_process(
    shared_run: Path, without_chance, histories: Callable, same_losses: Callable
) -> None:
    same_losses(histories(without_chance.folder), histories(shared_run))


def test_every_example_is_predicted_once_and_alike(shared_run: Path, without_chance) -> None:
    one, two = (pandas.read_parquet(folder / "predictions.parquet") for folder in (without_chance.folder, shared_run))
    assert two["id"].tolist() == list(range(37))
    assert two["label"].tolist() == one["label"].tolist()
    for role in ("teacher", "student"):  # the baseline's dropout differs from process to process
        left, right = (np.stack(frame[f"{role}_logits"].to_list()) for frame in (one, two))
        np.testing.assert_allclose(left, right, atol=2e-3)


def test_only_one_process_writes(shared_run: Path) -> None:
    assert len(list((shared_run / "tensorboard").glob("events.*"))) == 1
    assert {path.name for path in shared_run.iterdir() if path.is_file()} == {
        "config.yaml",
        "record.json",
        "report.md",
        "report.html",
        "predictions.parquet",
    }


def test_a_mistake_ends_all_processes(tiny, tmp_path: Path) -> None:
    done = tiny.run(tmp_path / "run", "--data.dir", "/no/such/folder", launcher=TORCHRUN)
    assert done.returncode != 0
    assert "error: data.dir: there is no folder /no/such/folder" in done.stderr
    assert not (tmp_path / "run").exists()
