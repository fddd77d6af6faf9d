"""Scores of a model during a run."""

import numpy as np
import pytest
import torch

from distill.config.schema import TrainingConfig
from distill.evaluation.predict import held_out_scorer, validation_metrics
from distill.tasks import get_task
from distill.training.context import TrainingContext
from distill.utils.errors import UserError


@pytest.fixture
def run(make_accelerator):
    return TrainingContext(make_accelerator(), TrainingConfig(), seed=0)


def test_held_out_score_is_the_mean_of_the_metrics(run, make_bert, make_examples):
    model, examples = make_bert(), make_examples(40)
    score, metrics = held_out_scorer(run, get_task("mrpc"), examples)(model)
    assert list(metrics) == ["f1", "accuracy"]
    assert score == pytest.approx((metrics["f1"] + metrics["accuracy"]) / 2)


def test_validation_of_two_splits(run, make_bert, make_examples):
    task = get_task("mnli")
    splits = {name: make_examples(10 + index, seed=index) for index, name in enumerate(task.validation_splits)}
    logits, metrics = validation_metrics(run, task, make_bert(num_labels=3), splits)
    assert {name: values.shape for name, values in logits.items()} == {
        "validation_matched": (10, 3),
        "validation_mismatched": (11, 3),
    }
    expected = np.mean(logits["validation_mismatched"].argmax(1) == splits["validation_mismatched"].labels)
    assert metrics["accuracy_mismatched"] == pytest.approx(expected)


def test_outputs_that_are_not_finite_are_the_users_to_mend(run, make_bert, make_examples):
    model = make_bert()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        validation_metrics(run, get_task("sst2"), model, {"validation": make_examples()})
