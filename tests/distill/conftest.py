"""Shared by the tests of the loop."""

import numpy as np
import pytest
import torch
from helpers.short_stages import TRAINING
from torch import nn

from distill.data.batching import collate
from distill.objectives.capture_plan import plan_stage
from distill.training.context import StageInputs, TrainingContext
from distill.training.loop import StageTrainer
from students import student_from_teacher
from teachers.loading import freeze
from teachers.outputs import OnlineTeacherOutputs


@pytest.fixture
def train_stage(make_bert, make_examples, make_accelerator, tmp_path):
    """Return a function that runs one stage on a fresh student and returns it with the progress."""
    teacher = freeze(make_bert(num_layers=3, seed=1))
    examples = make_examples(20)

    def run_stage(stage, folder="stage", training=TRAINING, scores=None, features="fixed", with_teacher=True):
        accelerator = make_accelerator(gradient_accumulation_steps=training.gradient_accumulation)
        student = student_from_teacher(
            teacher, layer_map=[0, 2], attention="performer", num_features=8, features=features, redraw_interval=3
        )[0]
        plan = plan_stage(stage, [0, 2], 3)

        def evaluate(model: nn.Module) -> tuple[float, dict[str, float]]:
            if scores is not None:
                score = scores.pop(0)
            else:
                batch, labels = collate(examples, np.arange(8))
                with torch.no_grad():
                    score = (model.eval()(**batch).logits.argmax(1) == labels).float().mean().item()
            return score, {"accuracy": score}

        run = TrainingContext(accelerator, training, seed=7)
        outputs = OnlineTeacherOutputs(teacher, plan) if with_teacher else None
        inputs = StageInputs(examples, plan, outputs)
        progress = StageTrainer(run, student, stage, inputs, tmp_path / folder, evaluate).run()
        return student, progress

    return run_stage
