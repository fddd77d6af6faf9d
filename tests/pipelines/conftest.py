"""A run of the whole pipeline that is small enough to be repeated in tests."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import warm
from helpers.data_folders import few_sentences
from helpers.same_end import differences

ROOT = Path(__file__).resolve().parents[2]
Launcher = tuple[str, ...] | int
"""What stands before the script on the command line, or the number of ranks to be forked."""
SECRET = "token-that-nobody-may-see"
PYTHON: Launcher = ("python",)

TINY = """
task: sst2
data: {dir: DATA, max_length: 32, max_train_examples: 300}
teacher:
  checkpoint: null
  scratch: {num_layers: 2, hidden_size: 32, num_heads: 2, intermediate_size: 64, vocabulary_size: 400}
  epochs: 1
  learning_rate: 1.0e-3
  margin_over_majority: -1        # what is tested is the way through the phases, not the quality
student: {attention: performer, num_layers: 1, features: redrawn, redraw_interval: 3, num_features: 16}
stages:
  - name: layers
    epochs: 1
    learning_rate: 1.0e-3
    losses: {attention_output: 1.0, hidden_states: 0.5}
  - name: logits
    epochs: 2
    learning_rate: 1.0e-3
    losses: {logits: 0.9, labels: 0.1}
    dropout: true
    keep_best_epoch: true
baseline: {epochs: 1}
training: {checkpoint_every: 3, log_every: 2, mixed_precision: "no"}
comparison: {batch_sizes: [2], lengths: [16], seconds_per_point: 0.05, resamples: 200, memory: false}
"""


@dataclass(frozen=True)
class Tiny:
    """The tiny run: its configuration file, and how it is started."""

    config: Path

    def command(self, run_dir: Path, *more: str, launcher: Launcher = PYTHON, script: str = "distill.py") -> list[str]:
        """Return the command line."""
        launcher = PYTHON if isinstance(launcher, int) else launcher
        start = [str(Path(sys.executable).with_name(launcher[0])), *launcher[1:]]
        path = str(ROOT / "pipelines" / script)
        return [*start, path, "--config", str(self.config), "--run_dir", str(run_dir), *more]

    @property
    def environment(self) -> dict[str, str]:
        """Return an environment in which two runs give the same bits: one thread, no GPU."""
        return warm.environment(SOME_TOKEN=SECRET)

    def start(
        self, run_dir: Path, *more: str, variables: Mapping[str, str] | None = None, **how: Any
    ) -> subprocess.Popen[str] | warm.Warm | warm.Ranks:
        """Start the run, ``variables`` added to the environment of ranks that are forked; return its process."""
        launcher = how.get("launcher", PYTHON)
        if isinstance(launcher, int):
            environment = self.environment | dict(variables or {})
            return warm.Ranks(launcher, self.command(run_dir, *more, **how)[1:], environment, self.config.parent)
        if launcher == PYTHON:
            return warm.Warm(self.command(run_dir, *more, **how)[1:], self.environment, self.config.parent)
        return subprocess.Popen(
            self.command(run_dir, *more, **how),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.config.parent,
            start_new_session=True,  # a launcher and its processes are killed together
        )

    def kill_when(
        self, process: subprocess.Popen[str] | warm.Warm | warm.Ranks, run_dir: Path, pattern: str
    ) -> tuple[bool, str]:
        """Kill the run as soon as a path of its folder exists; tell whether it lived until then, and its stderr."""
        killed = False
        while process.poll() is None and not killed:
            if any(run_dir.glob(pattern)):
                # Not a group: a launcher's workers are in sessions of their own, and would train on as orphans.
                for rank in getattr(process, "ranks", [process]):
                    leader = psutil.Process(rank.pid)
                    for each in [leader, *leader.children(recursive=True)]:
                        with suppress(psutil.NoSuchProcess):
                            each.kill()
                killed = True
            time.sleep(0.002)
        return killed, process.communicate()[1]

    def run(self, run_dir: Path, *more: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end, whatever the exit code."""
        process = self.start(run_dir, *more, **how)
        output, errors = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@dataclass(frozen=True)
class Finished:
    """A run that went through without a disturbance, and what it printed."""

    folder: Path
    output: str


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Return the configuration of the tiny run."""
    folder = tmp_path_factory.mktemp("tiny")
    config = folder / "tiny.yaml"
    config.write_text(TINY.replace("DATA", str(few_sentences(folder / "data", 330, 200))))
    return Tiny(config)


@pytest.fixture(scope="session")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run the tiny configuration once for all tests that only read what it left."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = tiny.run(folder)
    assert done.returncode == 0, done.stderr
    return Finished(folder, done.stdout)


@pytest.fixture(scope="session")
def histories() -> Callable[[Path], dict[str, list[dict[str, float]]]]:
    """Return a function that reads the loss history of every phase of a run, the clock's figures left out."""

    def read(run_dir: Path) -> dict[str, list[dict[str, float]]]:
        found = {}
        for path in sorted((run_dir / "checkpoints").glob("*/result.json")):
            lines = json.loads(path.read_text())["history"]
            found[path.parent.name] = [
                {name: value for name, value in line.items() if name != "examples_per_second"} for line in lines
            ]
        return found

    return read


@pytest.fixture(scope="session")
def same_end() -> Callable[[Path, Path], None]:
    """Return a function that checks that two runs ended bit-equal."""

    def check(one: Path, other: Path) -> None:
        assert differences(one, other) == []

    return check


def assert_same_losses(expected: dict[str, list[dict[str, float]]], got: dict[str, list[dict[str, float]]]) -> None:
    """Check that two ways to run the same stages without dropout computed the same losses."""
    for stage in ("layers", "logits"):
        assert [line["step"] for line in expected[stage]] == [line["step"] for line in got[stage]]
        for one, other in zip(expected[stage], got[stage], strict=True):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-7)


@pytest.fixture(scope="session")
def same_losses() -> Callable[..., None]:
    """Return :func:`assert_same_losses`; a test module cannot import from here."""
    return assert_same_losses


WITHOUT_CHANCE = """
data: {dir: DATA, max_length: 16, max_train_examples: null}
teacher: {checkpoint: TEACHER, epochs: 10, learning_rate: 5.0e-3, batch_size: 16, margin_over_majority: 0.3}
stages:
  - name: layers
    epochs: 1
    learning_rate: 1.0e-3
    losses: {attention_output: 1.0, hidden_states: 0.5}
  - name: logits
    epochs: 2
    learning_rate: 1.0e-3
    losses: {logits: 0.9, labels: 0.1}
    keep_best_epoch: true
"""


@dataclass(frozen=True)
class WithoutChance:
    """A distillation without dropout, which several processes share without changing its losses."""

    config: Path
    folder: Path
    """The run of one process."""


@pytest.fixture(scope="session")
def without_chance(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> WithoutChance:
    """Distil a teacher of an easy task on data whose sizes no number of processes divides."""
    folder = tmp_path_factory.mktemp("without_chance")
    (folder / "data" / "sst2").mkdir(parents=True)
    words = (("dull", "bad", "weak"), ("fine", "good", "bright"))
    for split, count in (("train", 133), ("validation", 37)):
        rows = [
            {"sentence": f"a {words[i % 2][i % 3]} film " + "of note " * (i % 4), "label": i % 2} for i in range(count)
        ]
        (folder / "data" / "sst2" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with_data = WITHOUT_CHANCE.replace("DATA", str(folder / "data"))
    (folder / "first.yaml").write_text(with_data.replace("TEACHER", "null"))
    first = tiny.run(folder / "teacher", "--config", str(folder / "first.yaml"), script="finetune_teacher.py")
    assert first.returncode == 0, first.stderr
    config = folder / "config.yaml"
    config.write_text(with_data.replace("TEACHER", str(folder / "teacher" / "teacher")))
    done = tiny.run(folder / "run", "--config", str(config))
    assert done.returncode == 0, done.stderr
    return WithoutChance(config, folder / "run")
