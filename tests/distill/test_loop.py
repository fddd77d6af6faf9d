"""The loop: its learning rate, what a batch may be cut into, and a resume that is bit-equal."""

import copy
import itertools
import math
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

import distill.loop as loop
from distill.batches import collate
from distill.config import StageConfig, TrainingConfig
from distill.errors import UserError
from distill.interrupts import SIGNALS, Interrupted, raise_on_signals
from distill.loop import Run, learning_rate_factor, out_of_patience, phase_seed, set_dropout, train
from distill.stages import plan_stage
from students import student_from_teacher
from teachers.load import freeze
from teachers.outputs import LiveTeacher

TRAINING = TrainingConfig(checkpoint_every=3, log_every=4)
LABELS = StageConfig(name="labels", epochs=2, learning_rate=0.005, losses={"labels": 1.0}, train="all", batch_size=6)
BOTH = replace(LABELS, name="both", losses={"logits": 0.7, "hidden_states": 0.5}, dropout=True)


class KilledError(Exception):
    """Stands for a process that ends without a word."""


@pytest.fixture
def setting(make_bert, make_examples, make_accelerator, tmp_path):
    """Return a function that runs one stage on a fresh student and returns it with the progress."""
    teacher = freeze(make_bert(num_layers=3, seed=1))
    examples = make_examples(20)

    def run_stage(stage, folder="stage", training=TRAINING, scores=None, features="fixed", examples=examples):
        accelerator = make_accelerator(gradient_accumulation_steps=training.gradient_accumulation)
        student = student_from_teacher(
            teacher, layer_map=[0, 2], attention="performer", num_features=8, features=features, redraw_interval=3
        )[0]
        plan = plan_stage(stage, [0, 2], 3)

        def evaluate(model: nn.Module) -> tuple[float, dict[str, float]]:
            if scores is not None:
                score = scores.pop(0)
            else:
                batch = collate(examples, np.arange(8))
                labels = batch.pop("labels")
                batch.pop("ids")
                with torch.no_grad():
                    score = (model.eval()(**batch).logits.argmax(1) == labels).float().mean().item()
            return score, {"accuracy": score}

        run = Run(accelerator, training, seed=7)
        progress = train(run, student, stage, plan, examples, tmp_path / folder, evaluate, LiveTeacher(teacher, plan))
        return student, progress

    return run_stage


def same_weights(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all((a.float() - b.float()).abs().max() <= tolerance for a, b in pairs)


@contextmanager
def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int, name: str = "train_step") -> Iterator[None]:
    """Let the loop die after ``steps`` calls of a function of its own, instead of the next one."""
    original, calls = getattr(loop, name), []

    def dying(*arguments, **keywords):
        calls.append(None)
        if len(calls) > steps:
            raise KilledError
        return original(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(loop, name, dying)
        yield


@pytest.mark.parametrize(
    ("step", "expected"),
    # 100 steps, 10 of them warm-up: 1/11, 2/11, ... 10/11, 1, 89/90, ... 1/90, 0
    [
        (0, 1 / 11),
        (1, 2 / 11),
        (9, 10 / 11),
        (10, 1.0),
        (11, 89 / 90),
        (55, 0.5),
        (99, 1 / 90),
        (100, 0.0),
        (101, 0.0),
    ],
)
def test_learning_rate(step, expected):
    assert learning_rate_factor(step, 100, 0.1) == pytest.approx(expected)


def test_learning_rate_without_warmup_and_in_a_single_step():
    assert [learning_rate_factor(step, 4, 0.0) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert learning_rate_factor(0, 1, 0.1) > 0


def test_every_phase_has_a_seed_of_its_own():
    assert phase_seed(1, "a") == phase_seed(1, "a")
    assert len({phase_seed(seed, name) for seed in range(3) for name in ("a", "b", "ab")}) == 9


def test_the_loss_falls_and_the_history_holds_no_times(setting):
    _, progress = setting(replace(LABELS, epochs=8))
    lines = progress.history
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24, 28, 32]
    assert set(lines[0]) == {"step", "learning_rate", "labels", "labels_weighted"}
    assert lines[-1]["labels"] < 0.5 * lines[0]["labels"]
    assert lines[0]["learning_rate"] == 0.005 * learning_rate_factor(3, 32, 0.1)
    assert progress.seconds > 0


def test_the_history_ends_with_the_last_step_and_weights_are_shown_apart(setting):
    _, progress = setting(replace(BOTH, epochs=1), training=replace(TRAINING, log_every=3))
    assert [line["step"] for line in progress.history] == [3, 4]
    for line in progress.history:
        assert line["logits_weighted"] == 0.7 * line["logits"]
        assert line["hidden_states_weighted"] == 0.5 * line["hidden_states"]


def test_a_line_of_the_history_is_the_mean_over_all_examples_of_the_epoch(setting, make_examples):
    # No learning: the mean over 20 examples in batches of 6, the last of them smaller, is the mean over one batch.
    stage = replace(LABELS, epochs=1, learning_rate=1e-12)
    _, small = setting(stage, "small", replace(TRAINING, log_every=10))
    _, large = setting(replace(stage, batch_size=20), "large", replace(TRAINING, log_every=10))
    assert small.history[0]["labels"] == pytest.approx(large.history[0]["labels"], rel=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_gradient_accumulation_changes_nothing(parts, setting, monkeypatch):
    # The last batch of an epoch has 2 examples, which leaves 2 of 4 parts empty. Plain descent, because Adam blows
    # the rounding error of a gradient of zero up to a whole step.
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: torch.optim.SGD(groups))
    stage = replace(LABELS, learning_rate=0.1)
    whole, once = setting(stage, "whole")
    cut, several = setting(stage, "cut", replace(TRAINING, gradient_accumulation=parts))
    start, _ = setting(replace(stage, learning_rate=1e-12), "start")
    assert same_weights(whole, cut, 1e-6)
    assert not same_weights(whole, start, 1e-2)
    for first, second in zip(once.history, several.history, strict=True):
        assert first == pytest.approx(second, rel=1e-5)


def test_partial_batches_are_kept_and_every_example_is_seen_once_an_epoch(setting, monkeypatch):
    seen = []
    original = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *args: (seen.append(args[5]), original(*args)))
    _, progress = setting(LABELS)
    assert progress.global_step == 8
    for epoch in (seen[:4], seen[4:]):
        assert sorted(np.concatenate(epoch)) == list(range(20))
        assert sorted(map(len, epoch)) == [2, 6, 6, 6]
    assert not np.array_equal(np.concatenate(seen[:4]), np.concatenate(seen[4:]))


@pytest.mark.parametrize(("steps", "features"), [(2, "fixed"), (3, "fixed"), (5, "redrawn"), (7, "redrawn")])
def test_resuming_inside_an_epoch_is_bit_equal(steps, features, setting, monkeypatch):
    straight, expected = setting(BOTH, "straight", features=features)
    with kill_after(monkeypatch, steps), pytest.raises(KilledError):
        setting(BOTH, "killed", features=features)
    student, progress = setting(BOTH, "killed", features=features)
    assert same_weights(straight, student)
    assert progress.history == expected.history
    assert progress.held_out == expected.held_out
    assert (progress.best_epoch, progress.best_score) == (expected.best_epoch, expected.best_score)


@pytest.mark.parametrize("name", ["finish_epoch", "save_checkpoint", "release"])
def test_resuming_after_a_kill_outside_the_steps_is_bit_equal(name, setting, monkeypatch):
    straight, expected = setting(BOTH, "straight")
    with kill_after(monkeypatch, 0 if name == "release" else 1, name), pytest.raises(KilledError):
        setting(BOTH, "killed")
    student, progress = setting(BOTH, "killed")
    assert same_weights(straight, student)
    assert progress.history == expected.history
    assert progress.held_out == expected.held_out


@contextmanager
def signal_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Iterator[None]:
    """Send SIGTERM to this process in the middle of a step."""
    original, calls = loop.train_step, []

    def signalled(*arguments):
        calls.append(None)
        if len(calls) == steps:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    raise_on_signals()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", signalled)
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "steps", [1, 3, 4, 8]
)  # in an epoch, where a checkpoint is due, at the end of epoch and stage
def test_a_signal_is_obeyed_after_the_running_step_is_saved(steps, setting, tmp_path, monkeypatch):
    straight, expected = setting(BOTH, "straight")
    with signal_after(monkeypatch, steps), pytest.raises(Interrupted) as interrupt:
        setting(BOTH, "stopped")
    assert interrupt.value.number == signal.SIGTERM
    assert max(path.name for path in (tmp_path / "stopped").glob("step-*")) == f"step-{steps:08d}"
    left = []
    original = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *args: (left.append(None), original(*args)))
    student, progress = setting(BOTH, "stopped")
    assert len(left) == 8 - steps
    assert same_weights(straight, student)
    assert progress.history == expected.history
    assert progress.held_out == expected.held_out


def test_a_signal_while_an_epoch_is_scored_waits_for_its_checkpoint(setting, monkeypatch, tmp_path):
    with signal_after(monkeypatch, 99), pytest.raises(Interrupted):
        setting(replace(LABELS, epochs=1), scores=SignalledScores())
    assert (tmp_path / "stage" / "step-00000004" / "manifest.json").exists()


class SignalledScores:
    """A held-out score during whose computation SIGINT comes."""

    def pop(self, index: int) -> float:
        signal.raise_signal(signal.SIGINT)
        return 0.5


def test_seconds_of_saving_are_added_up(setting, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(loop, "now", lambda: float(next(clock)))
    _, progress = setting(LABELS)
    assert progress.checkpoint_seconds == 4  # steps 3 and 6 and the ends of both epochs, one tick each
    assert not any("seconds" in name for line in progress.history for name in line)


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
    "losses since the last line": forget_progress(unlogged=[]),
    "history": forget_progress(history=[]),
    "held-out scores": forget_progress(held_out=[]),
    "best epoch": forget_progress(best_epoch=None),
    "best score": forget_progress(best_score=-math.inf),
}


def test_whatever_a_resume_would_forget_shows(setting, tmp_path, monkeypatch):
    """A stage killed inside its third epoch; the first one is the best, and patience ends it after the fourth."""
    stage = replace(BOTH, epochs=5, keep_best_epoch=True, patience=3)
    how = {"training": replace(TRAINING, checkpoint_every=5), "features": "redrawn"}
    scores = [0.9, 0.2, 0.4, 0.5]
    straight, expected = setting(stage, "straight", scores=scores[:], **how)
    assert expected.epoch == 4
    with kill_after(monkeypatch, 11), pytest.raises(KilledError):
        setting(stage, "killed", scores=scores[:], **how)
    alike = []
    for name, forget in {"nothing": lambda patch: None, **FORGETTING}.items():
        shutil.copytree(tmp_path / "killed", tmp_path / name)
        with monkeypatch.context() as patch:
            forget(patch)
            student, progress = setting(stage, name, scores=[*scores[2:], 0, 0, 0, 0, 0], **how)
        if same_weights(straight, student) and without_times(progress) == without_times(expected):
            alike.append(name)
    assert alike == ["nothing"]


def without_times(progress: loop.Progress) -> dict:
    return {name: value for name, value in asdict(progress).items() if "seconds" not in name}


def test_resuming_really_resumes(setting, monkeypatch):
    with kill_after(monkeypatch, 7), pytest.raises(KilledError):
        setting(LABELS)
    steps = []
    original = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *args: (steps.append(None), original(*args)))
    setting(LABELS)
    assert len(steps) == 2  # of 8: the last checkpoint before the kill was that of step 6


def test_best_epoch_is_kept(setting, monkeypatch):
    weights = []
    original = loop.finish_epoch

    def remember(accelerator, wrapped, *arguments):
        weights.append(copy.deepcopy(accelerator.unwrap_model(wrapped).model.state_dict()))
        original(accelerator, wrapped, *arguments)

    monkeypatch.setattr(loop, "finish_epoch", remember)
    stage = replace(LABELS, epochs=4, keep_best_epoch=True)
    student, progress = setting(stage, scores=[0.1, 0.8, 0.8, 0.3])  # of two equal ones the earlier
    assert (progress.best_epoch, progress.best_score, progress.epoch) == (2, 0.8, 4)
    assert [line["accuracy"] for line in progress.held_out] == [0.1, 0.8, 0.8, 0.3]
    state = student.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights[1].items())
    last, _ = setting(replace(stage, keep_best_epoch=False), "last", scores=[0.1, 0.8, 0.8, 0.3])
    assert all(torch.equal(last.state_dict()[name], tensor) for name, tensor in weights[3].items())


def test_best_epoch_is_the_first_one_even_below_zero(setting):
    _, progress = setting(replace(LABELS, keep_best_epoch=True), scores=[-0.2, -0.5])
    assert progress.best_epoch == 1


def test_patience_ends_a_stage(setting):
    _, progress = setting(replace(LABELS, epochs=9, patience=2), scores=[0.5, 0.6, 0.6, 0.4])
    assert progress.epoch == 4
    assert not out_of_patience(progress, None)


def test_a_loss_that_is_not_finite_is_the_users_to_mend(setting, make_examples, tmp_path, monkeypatch):
    original = loop.compute_losses
    monkeypatch.setattr(
        loop, "compute_losses", lambda *a: {name: value * math.nan for name, value in original(*a).items()}
    )
    with pytest.raises(UserError, match="stage labels: loss is not finite at step 3; lower its learning_rate"):
        setting(LABELS)
    # What is broken must not be what a resume starts from.
    assert not list((tmp_path / "stage").glob("step-*"))


def test_dropout_is_the_models_own_or_off(make_bert):
    student = student_from_teacher(
        make_bert(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2), layer_map=[0, 1], attention="softmax"
    )[0]

    def rates() -> dict[str, float]:
        return {name: module.p for name, module in student.named_modules() if isinstance(module, nn.Dropout)}

    before = rates()
    assert set(before.values()) == {0.3, 0.2}
    set_dropout(student, False)
    assert set(rates().values()) == {0.0}
    set_dropout(student, True)
    assert rates() == before


@pytest.mark.parametrize(
    ("features", "drawn"), [("redrawn", [(2, 1), (5, 2), (8, 3), (11, 4), (14, 5)]), ("fixed", []), ("learned", [])]
)
def test_features_are_redrawn_every_interval_but_not_in_the_last_fifth(features, drawn, make_bert):
    student = student_from_teacher(
        make_bert(), layer_map=[0], attention="performer", num_features=8, features=features, redraw_interval=3
    )[0]
    got = []
    student.redraw_projections = got.append
    for step in range(20):
        before = len(got)
        loop.redraw_features(student, step, 20)
        got[before:] = [(step, index) for index in got[before:]]
    assert got == drawn
