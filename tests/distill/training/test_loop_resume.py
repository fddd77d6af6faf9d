"""A stage that was killed or interrupted anywhere goes on and ends bit-equal."""

import math
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
import torch
from helpers.short_stages import BOTH, LABELS, TRAINING, same_weights
from torch import nn

import distill.training.loop as loop
from distill.training.loop import StageTrainer
from distill.training.progress import Progress
from distill.utils.interrupts import SIGNALS, Interrupted, raise_on_signals


class KilledError(Exception):
    """Stands for a process that ends without a word."""


@contextmanager
def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int, name: str = "train_step") -> Iterator[None]:
    """Let the trainer die after ``steps`` calls of a method of its own, instead of the next one."""
    original, calls = getattr(StageTrainer, name), []

    def dying(*arguments, **keywords):
        calls.append(None)
        if len(calls) > steps:
            raise KilledError
        return original(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, name, dying)
        yield


@pytest.mark.parametrize(("steps", "features"), [(2, "fixed"), (3, "fixed"), (5, "redrawn"), (7, "redrawn")])
def test_resuming_inside_an_epoch_is_bit_equal(steps, features, train_stage, monkeypatch):
    straight, expected = train_stage(BOTH, "straight", features=features)
    with kill_after(monkeypatch, steps), pytest.raises(KilledError):
        train_stage(BOTH, "killed", features=features)
    student, progress = train_stage(BOTH, "killed", features=features)
    assert same_weights(straight, student)
    assert progress.history == expected.history
    assert progress.held_out == expected.held_out
    assert (progress.best_epoch, progress.best_score) == (expected.best_epoch, expected.best_score)


@pytest.mark.parametrize("name", ["finish_epoch", "save_progress", "finish"])
def test_resuming_after_a_kill_outside_the_steps_is_bit_equal(name, train_stage, monkeypatch):
    straight, expected = train_stage(BOTH, "straight")
    with kill_after(monkeypatch, 0 if name == "finish" else 1, name), pytest.raises(KilledError):
        train_stage(BOTH, "killed")
    student, progress = train_stage(BOTH, "killed")
    assert same_weights(straight, student)
    assert progress.history == expected.history
    assert progress.held_out == expected.held_out


def test_resuming_between_averaged_epochs_is_bit_equal(train_stage, monkeypatch):
    stage = replace(BOTH, epochs=3, average_epochs=2)
    straight, _ = train_stage(stage, "straight")
    with kill_after(monkeypatch, 1, "finish_epoch"), pytest.raises(KilledError):
        train_stage(stage, "killed")
    assert same_weights(straight, train_stage(stage, "killed")[0])


@contextmanager
def signal_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Iterator[None]:
    """Send SIGTERM to this process in the middle of a step."""
    original, calls = StageTrainer.train_step, []

    def signalled(*arguments):
        calls.append(None)
        if len(calls) == steps:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    raise_on_signals()
    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "train_step", signalled)
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "steps", [1, 3, 4, 8]
)  # in an epoch, where a checkpoint is due, at the end of epoch and stage
def test_a_signal_is_obeyed_after_the_running_step_is_saved(steps, train_stage, tmp_path, monkeypatch):
    straight, expected = train_stage(BOTH, "straight")
    with signal_after(monkeypatch, steps), pytest.raises(Interrupted) as interrupt:
        train_stage(BOTH, "stopped")
    assert interrupt.value.number == signal.SIGTERM
    assert max(path.name for path in (tmp_path / "stopped").glob("step-*")) == f"step-{steps:08d}"
    left = []
    original = StageTrainer.train_step
    monkeypatch.setattr(StageTrainer, "train_step", lambda *args: (left.append(None), original(*args)))
    student, progress = train_stage(BOTH, "stopped")
    assert len(left) == 8 - steps
    assert same_weights(straight, student)
    assert progress.history == expected.history
    assert progress.held_out == expected.held_out


def test_a_signal_while_an_epoch_is_scored_waits_for_its_checkpoint(train_stage, monkeypatch, tmp_path):
    with signal_after(monkeypatch, 99), pytest.raises(Interrupted):
        train_stage(replace(LABELS, epochs=1), scores=SignalledScores())
    assert (tmp_path / "stage" / "step-00000004" / "manifest.json").exists()


class SignalledScores:
    """A held-out score during whose computation SIGINT comes."""

    def pop(self, index: int) -> float:
        signal.raise_signal(signal.SIGINT)
        return 0.5


def forget_optimizer(monkeypatch):
    monkeypatch.setattr(torch.optim.Optimizer, "load_state_dict", lambda self, state: None)


def forget_random_state(monkeypatch):
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)


def forget_weights_named(part):
    def forget(monkeypatch):
        original = nn.Module.load_state_dict

        def load(self, state, *arguments, **keywords):
            own = self.state_dict()
            kept = {name: own[name].clone() if part in name else tensor for name, tensor in state.items()}
            return original(self, kept, *arguments, **keywords)

        monkeypatch.setattr(nn.Module, "load_state_dict", load)

    return forget


def forget_progress(**values):
    def forget(monkeypatch):
        original = loop.load_checkpoint
        monkeypatch.setattr(loop, "load_checkpoint", lambda *args: original(*args) | values)

    return forget


FORGETTING = {
    "optimizer": forget_optimizer,
    "random state": forget_random_state,
    "projections": forget_weights_named("projection"),
    "weights": forget_weights_named("classifier"),
    "schedule": forget_progress(global_step=0),
    "position in the epoch": forget_progress(step=0),
    "epoch": forget_progress(epoch=0),
    "losses since the last line": forget_progress(unlogged=[0.0] * 3),
    "history": forget_progress(history=[]),
    "examples seen": forget_progress(examples=0),
    "held-out scores": forget_progress(held_out=[]),
    "best epoch": forget_progress(best_epoch=None),
    "best score": forget_progress(best_score=-math.inf),
}


def test_whatever_a_resume_would_forget_shows(train_stage, tmp_path, monkeypatch):
    """A stage killed inside its third epoch; the first one is the best, and patience ends it after the fourth."""
    stage = replace(BOTH, epochs=5, keep_best_epoch=True, patience=3)
    how = {"training": replace(TRAINING, checkpoint_every=5), "features": "redrawn"}
    scores = [0.1, 0.9, 0.2, 0.4, 0.5]
    straight, expected = train_stage(stage, "straight", scores=scores[:], **how)
    assert expected.epoch == 4
    with kill_after(monkeypatch, 11), pytest.raises(KilledError):
        train_stage(stage, "killed", scores=scores[:], **how)
    alike = []
    for name, forget in {"nothing": lambda patch: None, **FORGETTING}.items():
        shutil.copytree(tmp_path / "killed", tmp_path / name)
        with monkeypatch.context() as patch:
            forget(patch)
            student, progress = train_stage(stage, name, scores=[*scores[3:], 0, 0, 0, 0, 0], **how)
        if same_weights(straight, student) and without_times(progress) == without_times(expected):
            alike.append(name)
    assert alike == ["nothing"]


def without_times(progress: Progress) -> dict:
    return {name: value for name, value in asdict(progress).items() if "seconds" not in name}


def test_resuming_really_resumes(train_stage, monkeypatch):
    with kill_after(monkeypatch, 7), pytest.raises(KilledError):
        train_stage(LABELS)
    steps = []
    original = StageTrainer.train_step
    monkeypatch.setattr(StageTrainer, "train_step", lambda *args: (steps.append(None), original(*args)))
    train_stage(LABELS)
    assert len(steps) == 2  # of 8: the last checkpoint before the kill was that of step 6


def test_the_bar_counts_every_step_and_goes_on_where_it_was(train_stage, monkeypatch):
    bars, make_bar = [], loop.progress_bar
    monkeypatch.setattr(loop, "progress_bar", lambda **how: (bars.append(make_bar(**how)), bars[-1])[1])
    with kill_after(monkeypatch, 5), pytest.raises(KilledError):
        train_stage(LABELS)
    train_stage(LABELS)
    assert [(bar.n, bar.total) for bar in bars] == [(5, 8), (8, 8)]
    assert bars[0].initial == 0
    assert bars[1].initial in (3, 4)  # the end of an epoch has a checkpoint only where that took little time


def test_trackers_are_written_out_before_every_checkpoint(train_stage, monkeypatch):
    """A run that is killed behind a checkpoint goes on from it, and what was shown up to there stays."""
    calls, save = [], loop.save_checkpoint
    monkeypatch.setattr(loop, "flush_trackers", lambda accelerator: calls.append("trackers"))
    monkeypatch.setattr(loop, "save_checkpoint", lambda *given: (calls.append("checkpoint"), save(*given)))
    train_stage(LABELS)
    assert calls
    assert calls == ["trackers", "checkpoint"] * (len(calls) // 2)


def test_a_stage_that_ends_leaves_nothing_to_the_checkpoints_of_the_next(train_stage, monkeypatch):
    trainers, finish = [], StageTrainer.finish
    monkeypatch.setattr(StageTrainer, "finish", lambda self: (finish(self), trainers.append(self)))
    train_stage(LABELS)
    (accelerator,) = (trainer.accelerator for trainer in trainers)
    assert (accelerator._models, accelerator._optimizers) == ([], [])
