"""The student of a regression: what it answers before it has learned anything is in the unit of the scores."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.config.schema import Config, StudentSettings
from distill.data.batching import collate
from distill.training.label_scale import LabelScale
from pipelines.run.student import build_student

SCALE = LabelScale(shift=300.0, factor=20.0)


@pytest.fixture
def answers(make_bert, make_examples):
    """Return a function that builds a student on a scale of labels and returns the teacher's and its answers."""

    def answer(attention, scale):
        teacher, train = make_bert(num_labels=1, problem_type="regression").eval(), make_examples(8)
        config = Config("stsb", student=StudentSettings(attention=attention, num_layers=2), seed=3)
        accelerator = SimpleNamespace(device=torch.device("cpu"))
        run = SimpleNamespace(label_scale=scale, accelerator=accelerator)
        context = SimpleNamespace(config=config, run=run, device=accelerator.device)
        setup = SimpleNamespace(layer_map=[0, 1], train=train, earlier=None)
        student = build_student(context, teacher, setup, quiet=True).eval()
        inputs = collate(train, np.arange(8))[0]
        with torch.no_grad():
            return teacher(**inputs).logits, student(**inputs).logits

    return answer


def test_a_head_that_starts_anew_answers_in_the_unit_of_the_scores(answers):
    """It would start at 0, hundreds of deviations from every score."""
    (_, untrained), (_, scaled) = answers("lstm", None), answers("lstm", SCALE)
    assert untrained.abs().max() < 1
    torch.testing.assert_close(scaled, SCALE.factor * untrained + SCALE.shift)


def test_a_head_that_is_the_teachers_has_its_unit_already(answers):
    teacher, student = answers("softmax", SCALE)
    torch.testing.assert_close(student, teacher)
