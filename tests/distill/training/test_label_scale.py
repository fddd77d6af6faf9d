"""What a regression learns does not depend on the unit of its scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.short_stages import BOTH, LABELS, TRAINING

from distill.data.batching import collate
from distill.evaluation.predict import held_out_scorer
from distill.objectives.capture_plan import plan_stage
from distill.tasks import get_task
from distill.training.context import StageInputs, TrainingContext
from distill.training.label_scale import LabelScale, measure_label_scale
from distill.training.loop import StageTrainer
from distill.training.progress import Progress
from distill.utils.errors import UserError
from students import student_from_teacher
from teachers.loading import freeze
from teachers.outputs import OnlineTeacherOutputs

UNITS = [(1.0, 0.0), (100.0, 3.0), (1e5, 2e6), (1e-4, 0.0), (-5.0, 1.0)]
"""Factor and shift of the scores."""


@pytest.fixture
def distil(make_bert, make_examples, make_accelerator, tmp_path):
    """Return a function that trains teacher and student on scores of a unit; it returns both one's outputs."""

    def run(factor: float, shift: float) -> list[np.ndarray]:
        examples = make_examples(40)
        plain = np.random.default_rng(1).normal(size=40) + 2 * examples.labels
        scored = replace(examples, labels=(factor * plain + shift).astype(np.float32))
        scale = measure_label_scale(scored.labels)
        context = TrainingContext(make_accelerator(gradient_accumulation_steps=1), TRAINING, 7, scale)
        scorer = held_out_scorer(context, get_task("stsb"), scored)
        outputs = []

        def train(model, stage, inputs):
            folder = tmp_path / f"{factor}-{stage.name}"
            progress = StageTrainer(context, model, replace(stage, keep_best_epoch=True), inputs, folder, scorer).run()
            freeze(model)
            outputs.append(model(**collate(scored, np.arange(40))[0]).logits[:, 0].double().numpy())
            return progress

        teacher = make_bert(num_layers=3, num_labels=1, problem_type="regression")
        scale.restore_head(teacher)
        progress = train(teacher, replace(LABELS, epochs=12, learning_rate=0.002), StageInputs(scored))
        student = student_from_teacher(teacher, layer_map=[0, 2], attention="performer", num_features=8)[0]
        plan = plan_stage(BOTH, [0, 2], 3)
        train(student, BOTH, StageInputs(scored, plan, OnlineTeacherOutputs(teacher, plan)))
        assert np.isclose(progress.held_out[-1]["pearson"], progress.best_score, atol=0.5)
        return outputs

    return run


def test_the_unit_of_the_scores_changes_nothing(distil):
    """Powers of two round nowhere; other factors in the last digit, which the optimizer's steps make a hundredth."""
    plain = distil(1.0, 0.0)
    assert min(outputs.std() for outputs in plain) > 0.1, "nothing was learned: the comparison would mean nothing"
    for factor, shift in [(2.0**20, 0.0), (2.0**-15, 0.0), *UNITS[1:-1]]:
        for ours, theirs in zip(plain, distil(factor, shift), strict=True):
            if shift == 0 and np.log2(factor).is_integer():
                np.testing.assert_array_equal(theirs / factor, ours)
            else:
                np.testing.assert_allclose((theirs - shift) / factor, ours, atol=0.1 * ours.std())


@pytest.mark.parametrize(("factor", "shift"), UNITS)
def test_a_head_predicts_in_either_unit(make_bert, make_examples, factor, shift):
    model, scale = make_bert(num_labels=1), LabelScale(shift, abs(factor))
    inputs, _ = collate(make_examples(), np.arange(8))
    with torch.no_grad():
        standard = model(**inputs).logits
        scale.restore_head(model)
        ours = model(**inputs).logits
        scale.standardise_head(model)
        again = model(**inputs).logits
    expected = scale.restore(standard.numpy())
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-5 * abs(factor))
    torch.testing.assert_close(scale.standardise(torch.from_numpy(expected)), standard, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again, standard, rtol=1e-4, atol=1e-4)


def test_scores_that_single_precision_blurs():
    with pytest.raises(UserError, match=r"scores of 1e\+09 on average differ by 2 only.*subtract a constant"):
        measure_label_scale(np.array([1e9 - 2, 1e9 + 2]))


def test_a_checkpoint_of_another_unit_is_refused(make_bert, make_examples, make_accelerator, tmp_path, monkeypatch):
    examples = make_examples(12)
    scored = replace(examples, labels=examples.labels.astype(np.float32))
    context = TrainingContext(make_accelerator(), TRAINING, 7, measure_label_scale(scored.labels))
    saved = {"epoch": 1, "best_score": 0.5, "is_score_mean": True}  # as an earlier version wrote it
    monkeypatch.setattr("distill.training.loop.load_checkpoint", lambda *_: saved)
    trainer = StageTrainer(
        context, make_bert(num_labels=1), LABELS, StageInputs(scored), tmp_path / "labels", lambda _: (0.0, {})
    )
    with pytest.raises(UserError, match=r"checkpoint of an earlier version.*remove that folder"):
        trainer.run()
    assert not Progress.from_checkpoint(saved).is_standardised
