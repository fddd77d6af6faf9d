"""The loop: what a batch may be cut into, the history, the best epoch, and what ends it."""

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.short_stages import BOTH, LABELS, TRAINING, same_weights

import distill.training.loop as loop
import distill.training.stepper as stepper
from distill.objectives.capture_plan import plan_stage
from distill.training.context import StageInputs, TrainingContext
from distill.training.loop import StageTrainer, phase_seed
from distill.training.schedules import learning_rate_factor
from distill.utils.errors import UserError
from students import student_from_teacher
from teachers.loading import freeze
from teachers.outputs import OnlineTeacherOutputs


def test_every_phase_has_a_seed_of_its_own():
    assert phase_seed(1, "a") == phase_seed(1, "a")
    assert len({phase_seed(seed, name) for seed in range(3) for name in ("a", "b", "ab")}) == 9


def test_the_loss_falls_and_the_history_holds_no_times(train_stage):
    _, progress = train_stage(replace(LABELS, epochs=8))
    lines = progress.history
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24, 28, 32]
    assert set(lines[0]) == {"step", "learning_rate", "labels", "labels_weighted"}
    assert lines[-1]["labels"] < 0.5 * lines[0]["labels"]
    assert lines[0]["learning_rate"] == 0.005 * learning_rate_factor(3, 32, 0.1)
    assert progress.seconds > 0


def test_no_step_unwraps_the_model(train_stage, monkeypatch):
    """For which accelerate looks through the installed packages, and imports DeepSpeed where that is one of them."""
    monkeypatch.delattr(Accelerator, "unwrap_model")
    _, progress = train_stage(replace(LABELS, epochs=1))
    assert progress.global_step == 4


def test_the_history_ends_with_the_last_step_and_weights_are_shown_apart(train_stage):
    _, progress = train_stage(replace(BOTH, epochs=1), training=replace(TRAINING, log_every=3))
    assert [line["step"] for line in progress.history] == [3, 4]
    for line in progress.history:
        assert line["logits_weighted"] == 0.7 * line["logits"]
        assert line["hidden_states_weighted"] == 0.5 * line["hidden_states"]


def test_trackers_see_the_losses_and_every_epochs_score(train_stage, monkeypatch):
    shown = []
    monkeypatch.setattr(loop, "log_figures", lambda accelerator, values, step: shown.append((step, dict(values))))
    _, progress = train_stage(LABELS, scores=[0.5, 0.25])
    lines = [(step, values) for step, values in shown if "labels/labels" in values]
    assert [step for step, _ in lines] == [line["step"] for line in progress.history] == [4, 8]
    for (_, values), line in zip(lines, progress.history, strict=True):
        assert values.pop("labels/examples_per_second") > 0
        assert values == {f"labels/{name}": value for name, value in line.items() if name != "step"}
    others = [(step, values) for step, values in shown if "labels/labels" not in values]
    assert others == [(4, {"labels/held_out_accuracy": 0.5}), (8, {"labels/held_out_accuracy": 0.25})]


def test_a_line_of_the_history_is_the_mean_over_all_examples_of_the_epoch(train_stage):
    # No learning: the mean over 20 examples in batches of 6, the last of them smaller, is the mean over one batch.
    stage = replace(LABELS, epochs=1, learning_rate=1e-12)
    _, small = train_stage(stage, "small", replace(TRAINING, log_every=10))
    _, large = train_stage(replace(stage, batch_size=20), "large", replace(TRAINING, log_every=10))
    assert small.history[0]["labels"] == pytest.approx(large.history[0]["labels"], rel=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_gradient_accumulation_changes_nothing(parts, train_stage, monkeypatch):
    # The last batch of an epoch has 2 examples, which leaves 2 of 4 parts empty. Plain descent, because Adam blows
    # the rounding error of a gradient of zero up to a whole step.
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: torch.optim.SGD(groups))
    stage = replace(LABELS, learning_rate=0.1)
    whole, once = train_stage(stage, "whole")
    cut, several = train_stage(stage, "cut", replace(TRAINING, gradient_accumulation=parts))
    start, _ = train_stage(replace(stage, learning_rate=1e-12), "start")
    assert same_weights(whole, cut, 1e-6)
    assert not same_weights(whole, start, 1e-2)
    for first, second in zip(once.history, several.history, strict=True):
        assert first == pytest.approx(second, rel=1e-5)


def steps_seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return a list that grows by the indices of every step that is taken from now on."""
    seen: list[np.ndarray] = []
    original = StageTrainer.train_step
    monkeypatch.setattr(StageTrainer, "train_step", lambda *args: (seen.append(args[1]), original(*args)))
    return seen


def test_partial_batches_are_kept_and_every_example_is_seen_once_an_epoch(train_stage, monkeypatch):
    seen = steps_seen(monkeypatch)
    _, progress = train_stage(LABELS)
    assert progress.global_step == 8
    for epoch in (seen[:4], seen[4:]):
        assert sorted(np.concatenate(epoch)) == list(range(20))
        assert sorted(map(len, epoch)) == [2, 6, 6, 6]
    assert not np.array_equal(np.concatenate(seen[:4]), np.concatenate(seen[4:]))


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 2), (1.5, 6), (0.01, 1)])
def test_a_part_of_an_epoch_ends_in_the_middle(epochs, steps, train_stage, monkeypatch):
    seen = steps_seen(monkeypatch)
    _, progress = train_stage(replace(LABELS, epochs=epochs))
    assert progress.global_step == len(seen) == steps
    assert progress.examples == sum(map(len, seen))
    assert len(progress.held_out) == math.ceil(epochs)
    assert progress.history[-1]["learning_rate"] == 0.005 * learning_rate_factor(steps - 1, steps, 0.1)


@pytest.mark.parametrize(("share", "seconds"), [(loop.CHECKPOINT_SHARE, 2), (1.0, 4)])
def test_seconds_of_saving_are_added_up(share, seconds, train_stage, monkeypatch):
    """Every third step is saved, and the ends of both epochs if that is cheap; one tick each."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", share)
    clock = itertools.count()
    monkeypatch.setattr(loop, "perf_counter", lambda: float(next(clock)))
    _, progress = train_stage(LABELS)
    assert progress.checkpoint_seconds == seconds
    assert not any("seconds" in name for line in progress.history for name in line)


def test_best_epoch_is_kept(train_stage, monkeypatch):
    weights = []
    original = StageTrainer.finish_epoch

    def remember(trainer):
        weights.append(copy.deepcopy(trainer.stepper.trained.state_dict()))
        original(trainer)

    monkeypatch.setattr(StageTrainer, "finish_epoch", remember)
    stage = replace(LABELS, epochs=4, keep_best_epoch=True)
    student, progress = train_stage(stage, scores=[0.0, 0.1, 0.8, 0.8, 0.3])  # of two equal ones the earlier
    assert (progress.best_epoch, progress.best_score, progress.epoch) == (2, 0.8, 4)
    assert [line["accuracy"] for line in progress.held_out] == [0.1, 0.8, 0.8, 0.3]
    state = student.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights[1].items())
    last, _ = train_stage(replace(stage, keep_best_epoch=False), "last", scores=[0.1, 0.8, 0.8, 0.3])
    assert all(torch.equal(last.state_dict()[name], tensor) for name, tensor in weights[3].items())


@pytest.mark.parametrize("settings", [{"keep_best_epoch": True}, {"average_epochs": 2}])
@pytest.mark.parametrize(
    ("spoil", "reason"), [(lambda path: path.write_bytes(b"half"), "torn"), (Path.unlink, "missing")]
)
def test_weights_of_an_epoch_that_are_gone_are_one_line(train_stage, tmp_path, monkeypatch, settings, spoil, reason):
    original = StageTrainer.finish

    def finish(trainer):
        for path in (tmp_path / "stage").glob("*epoch-*.safetensors"):
            spoil(path)
        original(trainer)

    monkeypatch.setattr(StageTrainer, "finish", finish)
    with pytest.raises(UserError, match=rf"epoch-\d\.safetensors is {reason}; remove .*stage and start"):
        train_stage(replace(LABELS, epochs=3, **settings), scores=[0.0, 0.1, 0.8, 0.3])


def test_a_stage_that_makes_nothing_better_gives_back_what_it_started_from(train_stage):
    start, _ = train_stage(replace(LABELS, epochs=1, learning_rate=1e-12), "start")
    stage = replace(LABELS, epochs=2, keep_best_epoch=True)
    kept, progress = train_stage(stage, "kept", scores=[0.6, 0.6, 0.5])
    assert (progress.best_epoch, progress.epoch) == (0, 2)
    assert same_weights(kept, start, 1e-6)
    moved, _ = train_stage(stage, "moved", scores=[0.6, 0.7, 0.5])
    assert not same_weights(moved, start, 1e-4)
    # Without a teacher the head starts untrained: its luck is no candidate.
    _, progress = train_stage(stage, "labels", scores=[0.4, 0.5], with_teacher=False)
    assert (progress.best_epoch, progress.best_score) == (2, 0.5)


def test_a_stage_ends_with_the_mean_of_its_last_epochs(train_stage, monkeypatch):
    weights = []
    original = loop.keep_epoch

    def remember(state, *arguments):
        weights.append(copy.deepcopy(state))
        original(state, *arguments)

    monkeypatch.setattr(loop, "keep_epoch", remember)
    student, _ = train_stage(replace(LABELS, epochs=4, average_epochs=3))
    assert len(weights) == 4
    for name, tensor in student.state_dict().items():
        mean = sum(state[name].double() for state in weights[1:]) / 3
        assert torch.allclose(tensor.double(), mean, rtol=1e-6, atol=1e-8), name
    name = "bert.pooler.dense.weight"
    assert not torch.equal(weights[2][name], weights[3][name])


def test_the_history_has_the_weight_of_its_own_step(train_stage):
    stage = replace(LABELS, losses={"labels": 2.0}, final_losses={"labels": 0.0})
    _, progress = train_stage(stage)
    shares = [line["labels_weighted"] / line["labels"] for line in progress.history]
    total = progress.global_step - 1
    assert shares == pytest.approx([2 * (1 - (line["step"] - 1) / total) for line in progress.history])


def test_best_epoch_is_the_first_one_even_below_zero(train_stage):
    _, progress = train_stage(replace(LABELS, keep_best_epoch=True), scores=[-0.9, -0.2, -0.5])
    assert progress.best_epoch == 1


def test_patience_ends_a_stage(train_stage):
    _, progress = train_stage(replace(LABELS, epochs=9, patience=2), scores=[0.5, 0.6, 0.6, 0.4])
    assert progress.epoch == 4
    assert not progress.is_out_of_patience(None)


def test_a_loss_that_is_not_finite_is_the_users_to_mend(train_stage, tmp_path, monkeypatch):
    original = stepper.compute_losses
    monkeypatch.setattr(
        stepper, "compute_losses", lambda *a: {name: value * math.nan for name, value in original(*a).items()}
    )
    with pytest.raises(UserError, match="stage labels: loss is not finite at step 3; lower its learning_rate"):
        train_stage(LABELS)
    # What is broken must not be what a resume starts from.
    assert not list((tmp_path / "stage").glob("step-*"))


def test_a_stage_whose_losses_do_not_see_what_it_trains_is_refused(
    make_bert, make_examples, make_accelerator, tmp_path
):
    """The features of the only layer come after its values."""
    teacher = freeze(make_bert())
    student = student_from_teacher(teacher, layer_map=[0], attention="performer", num_features=8)[0]
    stage = replace(LABELS, name="values", losses={"value_relations": 1.0}, train="features")
    plan = plan_stage(stage, [0], 2)
    run = TrainingContext(make_accelerator(gradient_accumulation_steps=1), TRAINING, seed=7)
    inputs = StageInputs(make_examples(), plan, OnlineTeacherOutputs(teacher, plan))
    with pytest.raises(UserError, match=r"stages\.values\.train is features: no loss depends on that; train encoder"):
        StageTrainer(run, student, stage, inputs, tmp_path, lambda model: (0.0, {})).run()


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
