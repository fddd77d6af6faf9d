"""A stage of a student that is narrower than its target: linear maps, fitted at the start, trained, and not kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.killed_stage import kill_after
from helpers.short_stages import TRAINING, same_weights

from distill.config.schema import StageConfig
from distill.data.batching import collate
from distill.models.hooks import capture, read_teacher
from distill.objectives.capture_plan import plan_stage
from distill.objectives.linear_maps import LinearMap, Moments
from distill.objectives.losses import masked_mse
from distill.training.context import StageInputs, TrainingContext
from distill.training.loop import StageTrainer
from distill.training.summary_fitting import starting_maps
from students import student_from_teacher
from students.narrowing import Sizes, first_units, narrow_student
from teachers.outputs import OnlineTeacherOutputs

LOSSES = {"hidden_states": 1.0, "attention_output": 1.0, "attention_context": 1.0}
STAGE = StageConfig("width", 2, 1e-3, LOSSES, batch_size=6)
SIZES = Sizes(24, [1, 2], [40, 64])


@pytest.fixture
def teacher(make_bert):
    return make_bert(num_layers=4).requires_grad_(False)


@pytest.fixture
def make_student(teacher):
    def make():
        whole, _ = student_from_teacher(teacher, layer_map=[0, 2], attention="softmax")
        return narrow_student(whole.eval(), [0, 1], first_units(SIZES, 32))

    return make


@pytest.fixture
def make_inputs(teacher, make_examples):
    def make(stage=STAGE, across_widths=True):
        plan = plan_stage(stage, [0, 2], 4)
        return StageInputs(make_examples(), plan, OnlineTeacherOutputs(teacher, plan), across_widths)

    return make


@pytest.fixture
def run_stage(make_student, make_inputs, make_accelerator, tmp_path):
    def run(folder, stage=STAGE):
        student = make_student()
        context = TrainingContext(make_accelerator(), TRAINING, seed=7)
        trainer = StageTrainer(context, student, stage, make_inputs(stage), tmp_path / folder, lambda model: (0.0, {}))
        return student, trainer.run(), trainer

    return run


def both_sides(student, teacher, examples, plan):
    batch, _ = collate(examples, np.arange(len(examples)))
    with torch.no_grad(), capture(student, plan.student, plan.first_token_only) as captured:
        student(**batch)
    with torch.no_grad():
        return captured, read_teacher(teacher, plan.teacher, batch), batch["attention_mask"].bool()


@pytest.mark.parametrize("last_layer", ["all", "first_token"])
def test_every_output_of_another_width_starts_with_its_regression(last_layer, teacher, make_student, make_inputs):
    student, inputs = make_student().train(), make_inputs(replace(STAGE, last_layer=last_layer))
    before = torch.get_rng_state()
    maps = starting_maps(student, inputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert student.training
    # The second layer has both heads, whose contexts are as wide as the teacher's.
    kinds = ("hidden_states", "attention_output", "attention_context")
    expected = {(kind, place) for kind in kinds for place in (0, 1)} - {("attention_context", 1)}
    assert {(each.kind, each.place) for each in maps} == expected
    captured, targets, mask = both_sides(student.eval(), teacher, inputs.examples, inputs.plan)
    for each in maps:
        states, target = captured[each.kind][each.place], targets[each.kind][each.place]
        alone = states.shape[1] == 1
        assert alone is (last_layer == "first_token" and each.place == 1)
        rows = (states[:, 0], target[:, 0]) if alone else (states[mask], target[mask])
        moments = Moments()
        moments.add(*(part.double() for part in rows))
        weight, bias = moments.regression()
        torch.testing.assert_close(each.weight, weight, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(each.bias, bias, rtol=1e-3, atol=1e-4)


def test_the_losses_compare_what_is_mapped(run_stage, teacher, make_student, make_inputs):
    stage = replace(STAGE, batch_size=20, epochs=1)
    line = run_stage("one", stage)[1].history[0]
    student, inputs = make_student(), make_inputs(stage)
    maps = {(each.kind, each.place): each for each in starting_maps(student, inputs)}
    captured, targets, mask = both_sides(student, teacher, inputs.examples, inputs.plan)
    for kind in LOSSES:
        errors = []
        for place, (states, target) in enumerate(zip(captured[kind], targets[kind], strict=True)):
            mapped = maps[kind, place](states) if (kind, place) in maps else states
            errors.append(masked_mse(mapped, target, mask).mean())
        assert line[kind] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-3)


def test_the_maps_learn_and_do_not_stay_in_the_student(run_stage, make_student, make_inputs):
    student, progress, trainer = run_stage("whole")
    learned = trainer.stepper.accelerator.unwrap_model(trainer.stepper.wrapped).maps
    start = starting_maps(make_student(), make_inputs())
    assert len(learned) == len(start) == 5
    assert all(not torch.equal(one.weight, other.weight) for one, other in zip(learned, start, strict=True))
    assert student.state_dict().keys() == make_student().state_dict().keys()
    assert not same_weights(student, make_student())
    assert progress.history[-1]["hidden_states"] < progress.history[0]["hidden_states"]


def test_a_stage_that_is_killed_goes_on_with_its_maps_bit_equal(run_stage, monkeypatch):
    straight, expected, _ = run_stage("straight")
    kill_after(monkeypatch, 5, lambda: run_stage("killed"))
    student, progress, _ = run_stage("killed")
    assert same_weights(straight, student)
    assert progress.history == expected.history


def test_where_widths_are_the_same_there_are_no_maps(teacher, make_inputs):
    same, _ = student_from_teacher(teacher, layer_map=[0, 2], attention="softmax")
    assert starting_maps(same, make_inputs()) == []
    assert starting_maps(same, make_inputs(across_widths=False)) == []


@pytest.mark.parametrize("relations", ["value_relations", "query_relations", "key_relations"])
def test_relations_and_decisions_need_no_maps(relations, run_stage, make_student, make_inputs):
    stage = replace(STAGE, losses={relations: 1.0, "logits": 1.0}, epochs=6, learning_rate=3e-3)
    assert starting_maps(make_student(), make_inputs(stage)) == []
    _, progress, _ = run_stage("relations", stage)
    assert progress.history[0][relations] > 0
    assert progress.history[-1][relations] < progress.history[0][relations]


@torch.no_grad()
def test_moments_are_those_of_all_batches_around_any_mean():
    torch.manual_seed(0)
    states = torch.randn(300, 6) * torch.tensor([1.0, 2, 1, 1, 1, 1]) + 100
    truth, shift = torch.randn(4, 6), torch.randn(4)
    targets = states @ truth.T + shift
    moments = Moments()
    for part in (slice(0, 10), slice(10, 150), slice(150, 300)):
        moments.add(states[part], targets[part])
    mapped = LinearMap(*moments.regression())(states)
    assert (mapped - targets).square().mean() < 1e-3 * targets.var(0).mean()
    kept = torch.tensor([0, 1, 3, 4])
    columns = torch.cat([states[:, kept] - 100, torch.ones(300, 1)], 1).double()
    alone = torch.linalg.lstsq(columns, targets.double()).solution
    torch.testing.assert_close(moments.regression(kept)[0], alone[:4].T.float(), rtol=1e-2, atol=1e-2)
    expected = (targets - targets.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(moments.spread(), expected, rtol=1e-3, atol=1e-3)
