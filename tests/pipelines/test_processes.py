"""Several processes on one machine: the same losses as one, every example once, one writer, and one end."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers.closeness import TRAINED, assert_close
from helpers.first_step import first_step

from distill.config.copies_choice import read_choice

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_END = 90
"""Starting two processes takes most of it; what waited for a dead one would take hours."""


@pytest.fixture
def few_examples(without_chance, tmp_path: Path) -> Path:
    """Return the configuration of ``without_chance`` with 41 train examples, 8 of them held out, and 3 to validate."""
    source = without_chance.config.parent / "data"
    config = tmp_path / "few.yaml"
    config.write_text(without_chance.config.read_text().replace(str(source), str(tmp_path / "data")))
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for split, count in (("train", 41), ("validation", 3)):
        lines = (source / "sst2" / f"{split}.jsonl").read_text().splitlines()
        (tmp_path / "data" / "sst2" / f"{split}.jsonl").write_text("\n".join(lines[:count]))
    return config


@pytest.fixture(scope="module")
def shared_run(tiny, without_chance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run on two processes what ``without_chance`` ran on one."""
    folder = tmp_path_factory.mktemp("two") / "run"
    done = tiny.run(folder, "--config", str(without_chance.config), launcher=2)
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
        assert_close(right, left, TRAINED)


def test_only_one_process_writes(shared_run: Path) -> None:
    assert len(list((shared_run / "tensorboard").glob("events.*"))) == 1
    assert {path.name for path in shared_run.iterdir() if path.is_file()} == {
        "config.yaml",
        "record.json",
        "report.md",
        "report.html",
        "predictions.parquet",
    }


def test_copies_are_chosen_alike_by_one_process_and_by_two(tiny, without_chance, tmp_path: Path) -> None:
    found = []
    for name, launcher in (("one", None), ("two", 2)):
        more = ("--augmentation.choose", "true", "--augmentation.copies", "1", "--augmentation.kinds", "[mix, cut]")
        given = ("--config", str(without_chance.config), "--baseline.epochs", "0", *more)
        done = tiny.run(tmp_path / name, *given, launcher=launcher) if launcher else tiny.run(tmp_path / name, *given)
        assert done.returncode == 0, done.stderr
        found.append(read_choice(tmp_path / name))
    one, two = found
    assert one is not None
    assert two is not None
    for left, right in zip(one.tried, two.tried, strict=True):
        assert left.kind == right.kind
        assert left.divergence == pytest.approx(right.divergence, rel=1e-3)
        assert left.agreement == right.agreement
    assert one.chosen == two.chosen


def test_a_mistake_ends_all_processes_and_is_told_once(tiny, tmp_path: Path) -> None:
    done = tiny.run(tmp_path / "run", "--data.dir", "/no/such/folder", launcher=2)
    assert done.returncode != 0
    assert done.stderr.count("error: data.dir: there is no folder /no/such/folder") == 1
    assert not (tmp_path / "run").exists()


def test_four_processes_and_fewer_examples_than_that(
    tiny, few_examples: Path, tmp_path: Path, histories: Callable, same_losses: Callable
) -> None:
    """Three validation examples, eight held-out ones and a last batch of one, on four processes and on one."""
    one, four = tmp_path / "one", tmp_path / "four"
    for folder, launcher in ((one, ("python",)), (four, 4)):
        done = tiny.run(folder, "--config", str(few_examples), launcher=launcher)
        assert done.returncode == 0, done.stderr
    same_losses(histories(one), histories(four))
    left, right = (pandas.read_parquet(folder / "predictions.parquet") for folder in (one, four))
    assert right["id"].tolist() == [0, 1, 2]
    metrics = [json.loads((folder / "record.json").read_text())["models"]["student"] for folder in (one, four)]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]
    logits = [np.stack(frame["student_logits"].to_list()) for frame in (left, right)]
    assert_close(logits[1], logits[0], TRAINED)


def test_a_killed_process_ends_the_run_which_then_resumes(
    tiny, without_chance, tmp_path: Path, histories: Callable, same_losses: Callable
) -> None:
    """Kill -9 one of two processes in mid-training; an uninterrupted run is what ``without_chance`` left."""
    folder = tmp_path / "run"
    started = tiny.start(folder, "--config", str(without_chance.config), launcher=2)
    while started.poll() is None and not any(folder.glob("checkpoints/logits/step-*/manifest.json")):
        time.sleep(0.01)
    os.kill(started.ranks[1].pid, signal.SIGKILL)
    started.communicate(timeout=SECONDS_TO_END)
    assert started.returncode != 0
    newest = max(path.parent.name for path in folder.glob("checkpoints/logits/step-*/manifest.json"))
    done = tiny.run(folder, "--config", str(without_chance.config), launcher=2)
    assert done.returncode == 0, done.stderr
    assert f"step-{first_step(done.stderr, 'logits'):08d}" == newest
    same_losses(histories(without_chance.folder), histories(folder))


WHILE_OTHERS_WAIT = """
import os, signal, sys, threading, time
sys.path[:0] = [ROOT]
from distill.config.schema import Config
from distill.utils.cli import run
from distill.utils.errors import UserError
from distill.training.accelerator import make_accelerator, on_main_process

accelerator = make_accelerator(Config("sst2", stages=(), run_dir=FOLDER))

def work():
    open(os.path.join(FOLDER, "working"), "w").close()
    if CASE == "the main process finds a mistake":
        raise UserError("the disk is full; make room")
    if CASE == "the main process is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)  # another process is killed

def die():
    while not os.path.exists(os.path.join(FOLDER, "working")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)

def main():
    if CASE == "another process is killed" and not accelerator.is_main_process:
        threading.Thread(target=die).start()
    if CASE == "another process finds a mistake" and not accelerator.is_main_process:
        raise UserError("this machine has no such file; copy it")
    on_main_process(accelerator, work)

run(main)
"""
ENDS = {
    "the main process finds a mistake": "error: the disk is full; make room",
    "the main process is killed": None,
    "another process is killed": None,
    "another process finds a mistake": "error: this machine has no such file; copy it",
}


@pytest.mark.parametrize("case", ENDS)
def test_nobody_waits_for_a_process_that_is_gone(case: str, tiny, tmp_path: Path) -> None:
    """While the main process works alone for long, the others wait for hours, but not for a dead one."""
    script = tmp_path / "script.py"
    values = f"ROOT, FOLDER, CASE = {str(ROOT)!r}, {str(tmp_path)!r}, {case!r}\n"
    script.write_text(values + WHILE_OTHERS_WAIT)
    started = tiny.start(tmp_path / "unused", launcher=2, script=str(script))
    _, errors = started.communicate(timeout=SECONDS_TO_END)
    assert started.returncode != 0
    assert (tmp_path / "working").exists(), errors  # what ended it is not that it could not start
    if ENDS[case]:
        assert errors.count(ENDS[case]) == 1, errors
        assert errors.count("error: ") == 1, errors


THREADS_AT_THE_END = """
import os, sys
from pathlib import Path
sys.path[:0] = [ROOT]
from pipelines.distill import main

main()
names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
Path(FOLDER, os.environ["RANK"]).write_text("".join(name for name in names if "gloo" in name))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the names of threads are read from Linux's /proc")
def test_no_process_group_outlives_a_run(tiny, without_chance, tmp_path: Path) -> None:
    """One that did would now and then abort the process at the interpreter's end: exit code -6 from a finished run."""
    script = tmp_path / "script.py"
    script.write_text(f"ROOT, FOLDER = {str(ROOT)!r}, {str(tmp_path)!r}\n" + THREADS_AT_THE_END)
    settings = ("--config", str(without_chance.config))
    done = tiny.run(tmp_path / "run", *settings, launcher=2, script=str(script))
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["", ""]
