"""A stage whose teacher reads other tokens: decisions and summaries are matched, and the maps belong to its state."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.killed_stage import kill_after
from helpers.short_stages import TRAINING, same_weights
from helpers.tiny_teachers import tiny_teacher
from safetensors.torch import load_file
from torch.nn import functional as F

from distill.config.schema import CacheConfig, StageConfig
from distill.data.batching import collate
from distill.data.splits import Examples
from distill.data.tokenization import tokenize, train_tokenizer
from distill.models.hooks import capture, read_teacher
from distill.models.inputs import reading_of
from distill.models.summaries import SUMMARY
from distill.objectives.capture_plan import plan_across_encoders, summary_targets
from distill.objectives.summary_maps import fit_summary_map
from distill.tasks import get_task
from distill.training.context import StageInputs, TrainingContext
from distill.training.loop import StageTrainer
from distill.training.summary_fitting import starting_maps
from distill.utils.errors import UserError
from students import student_from_teacher
from teachers.any_classifier import load_any_teacher
from teachers.loading import freeze
from teachers.output_cache import bytes_of, stage_targets
from teachers.output_format import LEVELS, outputs_of
from teachers.outputs import OnlineTeacherOutputs

WORDS = ("fine", "dull", "bright", "weak", "film", "plot")
TEXTS = [" ".join(WORDS[(i + j) % 6] for j in range(1 + i % 5)) for i in range(20)]
STAGE = StageConfig("depth", 2, 1e-3, {"hidden_states": 1.0, "logits": 0.5}, batch_size=6)
LAYERS = [0, 2]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tiny_teacher("xlnet", TEXTS, tmp_path_factory.mktemp("xlnet"))
    loaded = load_any_teacher(str(folder), get_task("sst2"))
    freeze(loaded.model)
    return loaded


@pytest.fixture(scope="module")
def both(teacher):
    """The same texts in the student's tokens and in the teacher's."""
    examples = Examples(np.arange(20), [(text,) for text in TEXTS], np.arange(20) % 2)
    reading = reading_of(teacher.model, teacher.tokenizer)
    return tokenize(examples, train_tokenizer(TEXTS, 40), 32), tokenize(examples, teacher.tokenizer, 32, **reading)


@pytest.fixture
def make_student(make_bert):
    return lambda: student_from_teacher(make_bert(num_layers=2), layer_map=[0, 1], attention="softmax")[0]


@pytest.fixture
def inputs(teacher, both):
    plan = plan_across_encoders(STAGE, 2, LAYERS)
    return StageInputs(both[0], plan, OnlineTeacherOutputs(teacher.model, plan, examples=both[1]))


@pytest.fixture
def run_stage(make_student, inputs, make_accelerator, tmp_path):
    def run(folder, stage=STAGE):
        student = make_student()
        context = TrainingContext(make_accelerator(), TRAINING, seed=7)
        trainer = StageTrainer(context, student, stage, inputs, tmp_path / folder, lambda model: (0.0, {}))
        return student, trainer.run(), trainer

    return run


@pytest.mark.parametrize(
    ("layer_map", "source", "teacher_layers", "expected"),
    [
        ([0, 2, 4], 6, 12, [3, 7, 11]),
        ([0, 2, 4], 6, 6, [1, 3, 5]),
        ([0, 1, 2], 3, 12, [3, 7, 11]),
        ([3, 4, 5], 6, 24, [15, 19, 23]),
        ([0, 1, 2, 3], 4, 2, [0, 0, 1, 1]),
        ([0], 12, 3, [2]),
    ],
)
def test_layers_are_matched_by_their_share_of_the_depth(layer_map, source, teacher_layers, expected):
    assert summary_targets(layer_map, source, teacher_layers) == expected


@torch.no_grad()
def test_a_map_starts_as_the_regression_and_its_error_counts_in_deviations():
    torch.manual_seed(0)
    states = torch.randn(4000, 5)
    truth, shift = torch.randn(7, 5), torch.randn(7)
    fitted = fit_summary_map(states, states @ truth.T + shift)
    mapped, spread = fitted(states)
    assert (mapped - states @ truth.T - shift).square().sum(1).mean() / spread < 1e-3
    targets = torch.randn(4000, 7)  # nothing to do with the states
    mapped, spread = fit_summary_map(states, targets)(states)
    assert (mapped - targets).square().sum(1).mean() / spread == pytest.approx(1, abs=0.01)
    mapped, spread = fit_summary_map(states[:3], targets[:3])(states[:3])  # fewer rows than columns
    assert torch.isfinite(mapped).all()


def test_the_maps_start_from_the_first_token_and_the_teachers_summary(inputs, make_student, teacher, both):
    student = make_student().eval()
    before = torch.get_rng_state()
    maps = starting_maps(student, inputs)
    assert torch.equal(torch.get_rng_state(), before)
    everything = np.arange(20)
    batch, own = (collate(each, everything)[0] for each in both)
    with torch.no_grad(), capture(student, {"hidden_states": [0, 1]}) as captured:
        student(**batch)
        expected = read_teacher(teacher.model, {SUMMARY: LAYERS}, own)[SUMMARY]
        for each, states, targets in zip(maps, captured["hidden_states"], expected, strict=True):
            by_hand = fit_summary_map(states[:, 0], targets[:, 0])
            torch.testing.assert_close(each.weight, by_hand.weight, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(each.spread, by_hand.spread)


def test_the_losses_compare_row_with_row(run_stage, inputs, make_student, teacher, both):
    """By hand: the first step's losses on the whole of train, in one batch."""
    stage = replace(STAGE, batch_size=20, epochs=1)
    progress = run_stage("one", stage)[1]
    student, maps = make_student().eval(), starting_maps(make_student().eval(), inputs)
    batch, own = (collate(each, np.arange(20))[0] for each in both)
    with torch.no_grad(), capture(student, {"hidden_states": [0, 1]}) as captured:
        logits = student(**batch).logits
        read = read_teacher(teacher.model, {SUMMARY: LAYERS}, own)
        errors = []
        for each, states, target in zip(maps, captured["hidden_states"], read[SUMMARY], strict=True):
            mapped, spread = each(states[:, 0])
            errors.append((mapped - target[:, 0]).square().sum(1).mean() / spread)
    line = progress.history[0]
    assert line["hidden_states"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-3)
    assert 0 < line["hidden_states"] < 1
    divergence = F.kl_div(logits.log_softmax(1), read["logits"].log_softmax(1), log_target=True, reduction="batchmean")
    assert line["logits"] == pytest.approx(divergence.item(), rel=1e-3)


def test_the_maps_learn_and_do_not_stay_in_the_student(run_stage, inputs, make_student):
    student, progress, trainer = run_stage("whole")
    learned = trainer.stepper.accelerator.unwrap_model(trainer.stepper.wrapped).maps
    start = starting_maps(make_student().eval(), inputs)
    assert len(learned) == 2
    assert all(not torch.equal(one.weight, other.weight) for one, other in zip(learned, start, strict=True))
    assert all(torch.equal(one.spread, other.spread) for one, other in zip(learned, start, strict=True))
    assert student.state_dict().keys() == make_student().state_dict().keys()
    assert progress.history[-1]["hidden_states"] < progress.history[0]["hidden_states"]


def test_a_stage_that_is_killed_goes_on_with_its_maps_bit_equal(run_stage, monkeypatch, tmp_path):
    straight, expected, trainer = run_stage("straight")
    maps = trainer.stepper.accelerator.unwrap_model(trainer.stepper.wrapped).maps.state_dict()
    kill_after(monkeypatch, 5, lambda: run_stage("killed"))
    saved = load_file(max((tmp_path / "killed").glob("step-*")) / "model.safetensors")
    assert {"maps.0.weight", "maps.1.bias", "maps.1.spread"} <= saved.keys()
    student, progress, trainer = run_stage("killed")
    assert same_weights(straight, student)
    again = trainer.stepper.accelerator.unwrap_model(trainer.stepper.wrapped).maps.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in maps.items())
    assert progress.history == expected.history


@pytest.mark.parametrize("gigabytes", [1.0, 0.0], ids=["cached", "online"])
def test_outputs_belong_to_the_rows_whoever_reads_them(gigabytes, teacher, both, make_accelerator, tmp_path):
    plan = plan_across_encoders(STAGE, 2, LAYERS)
    accelerator, cache = make_accelerator(), CacheConfig(max_gigabytes=gigabytes)
    targets = stage_targets(accelerator, teacher.model, plan, both[1], cache, tmp_path, own_tokens=True).outputs
    rows = np.array([7, 3, 11, 19])
    got = targets.batch(rows, collate(both[0], rows)[0])
    expected = read_teacher(teacher.model, {SUMMARY: LAYERS}, collate(both[1], rows)[0])
    torch.testing.assert_close(got["logits"], expected["logits"], rtol=1e-4, atol=1e-4)
    for one, other in zip(got[SUMMARY], expected[SUMMARY], strict=True):
        assert one.shape == (4, 1, 24)
        step = (other.amax() - other.amin()) / LEVELS  # on disk, numbers are rounded to the nearest level
        torch.testing.assert_close(one, other, rtol=0, atol=step.item() / 2 + 1e-4 if gigabytes else 1e-4)
    stored = [output for outputs in outputs_of(plan).values() for output in outputs]
    assert bytes_of(stored, both[1], 24) == 2 * 20 * (24 + 8), "a row for every text, whatever its tokens"


def test_a_teacher_that_shows_no_layers_gives_decisions_alone():
    with pytest.raises(UserError, match=r"stages\.depth\.losses is 'hidden_states': the teacher does not show"):
        plan_across_encoders(STAGE, 2, [])
    plan = plan_across_encoders(replace(STAGE, losses={"logits": 1.0}), 2, [])
    assert plan.needs_logits
    assert not plan.teacher
