"""Scores of a model while a run goes on: on held-out train for selection, on validation for the record."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from distill.data.batching import TokenizedExamples
from distill.evaluation.metrics import compute_metrics, metrics_over_splits
from distill.evaluation.predict import predict_logits
from distill.tasks import Task
from distill.training.accelerator import autocast_dtype
from distill.training.loop import TrainingContext
from distill.utils.errors import UserError


def held_out_scorer(
    run: TrainingContext, task: Task, held_out: TokenizedExamples
) -> Callable[[nn.Module], tuple[float, dict[str, float]]]:
    """Return a function that gives a model's main metric and all metrics on the held-out part of train."""

    def score(model: nn.Module) -> tuple[float, dict[str, float]]:
        metrics = compute_metrics(
            task, logits_of(run, model, held_out, autocast_dtype(run.accelerator)), held_out.labels
        )
        return metrics[task.main_metric], metrics

    return score


def logits_of(
    run: TrainingContext, model: nn.Module, examples: TokenizedExamples, dtype: torch.dtype | None = None
) -> np.ndarray:
    """Return logits (n, C) on every process; ``dtype`` None computes in the weights' precision.

    Raises:
        UserError: they are not finite.
    """
    logits = predict_logits(model, examples, device=run.accelerator.device, autocast_dtype=dtype)
    if not np.isfinite(logits).all():
        raise UserError(
            "the model's outputs are not finite; lower the learning_rate of the phase that trained it, "
            "or use training.mixed_precision no"
        )
    return logits


def validation_metrics(
    run: TrainingContext, task: Task, model: nn.Module, validation: Mapping[str, TokenizedExamples]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the logits of every validation split, in full precision, and the metrics over them."""
    logits = {name: logits_of(run, model, examples) for name, examples in validation.items()}
    return logits, metrics_over_splits(task, logits, {name: examples.labels for name, examples in validation.items()})
