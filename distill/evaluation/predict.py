"""Logits of every example, once, whatever the batch size and the number of processes; and their scores."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn

from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.data.splits import Examples
from distill.data.text_windows import TextWindows
from distill.data.tokenization import tokenize
from distill.evaluation.metrics import HALF, compute_metrics, metrics_over_splits
from distill.evaluation.text_metrics import text_metrics, token_losses
from distill.evaluation.thresholds import best_threshold, own_threshold, threshold_of
from distill.models.inputs import accepted_inputs, reading_of
from distill.models.loading import Classifier
from distill.models.positions import find_positions
from distill.tasks import MULTI_LABEL, Task
from distill.training.accelerator import autocast_dtype
from distill.training.context import TrainingContext
from distill.training.progress import epoch_score
from distill.utils.errors import UserError

BATCH_SIZE = 64


@dataclass(frozen=True)
class Prediction:
    """What a classifier says about one text."""

    label: str | None
    """The most probable class; None for regression."""
    score: float
    """The probability of that class, or the predicted number."""
    probabilities: dict[str, float]
    """Of every class, in label order: their sum is 1, unless a text may have several labels. Empty for regression."""
    labels: tuple[str, ...] = ()
    """Where a text may have several labels, those whose probability reaches the model's threshold."""


def predict(
    classifier: Classifier, texts: Sequence[str] | Sequence[tuple[str, str]], *, batch_size: int = BATCH_SIZE
) -> list[Prediction]:
    """Return one prediction for every text, in their order; on the device where the model lies.

    Args:
        classifier: model and tokenizer, as `distill.models.loading.load_classifier` returns them.
        texts: strings, or pairs of strings for a task on pairs; truncated to the model's positions, in tokens, and
            whole where nothing limits these.
        batch_size: texts at a time.

    Raises:
        UserError: texts is a single string, or mixes texts and pairs.
    """
    if isinstance(texts, str):
        raise UserError("texts is a single string; give a list of texts")
    columns = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    widths = {len(row) for row in columns}
    if not widths:
        return []
    if widths not in ({1}, {2}):
        raise UserError("texts has entries of different kinds; give strings alone, or pairs of strings alone")
    model, numbers = classifier.model, np.arange(len(columns))
    examples = Examples(numbers, columns, np.zeros(len(columns), np.int64))
    tokenizer = classifier.tokenizer
    tokens = tokenize(examples, tokenizer, find_positions(model), **reading_of(model, tokenizer))
    logits = torch.from_numpy(predict_logits(model, tokens, device=model.device, batch_size=batch_size, alone=True))
    if logits.shape[1] == 1:
        return [Prediction(None, float(value), {}) for value in logits[:, 0]]
    labels: dict[Any, str] = model.config.id2label or {}
    names = [labels[index] for index in range(logits.shape[1])]
    several = model.config.problem_type == MULTI_LABEL
    threshold = threshold_of(model) if several else None
    found = []
    for row in (logits.double().sigmoid() if several else logits.double().softmax(dim=1)).tolist():
        probabilities = dict(zip(names, row, strict=True))
        best = max(names, key=probabilities.__getitem__)
        over = () if threshold is None else tuple(name for name in names if probabilities[name] >= threshold)
        found.append(Prediction(best, probabilities[best], probabilities, over))
    return found


def predict_logits(
    model: nn.Module,
    examples: TokenizedExamples,
    *,
    device: torch.device | str,
    batch_size: int = BATCH_SIZE,
    autocast_dtype: torch.dtype | None = None,
    alone: bool = False,
) -> np.ndarray:
    """Return float32 (n, C) logits in the order of ``examples``; on every process, of all examples.

    The model predicts in eval mode and without gradients; every submodule gets its mode back, also after an error.

    Args:
        model: returns an output with ``logits`` (B, C).
        autocast_dtype: compute in this dtype where autocast allows it; None: as the weights are.
        alone: this process predicts all examples by itself, whatever the others do.
    """
    if len(examples) == 0:
        raise ValueError("no examples to predict")
    training_modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        share = (0, 1) if alone else (PartialState().process_index, PartialState().num_processes)
        parts = _predict_share(model, examples, batch_size, device, autocast_dtype, *share)
        parts = parts if alone else gather_object(parts)
    finally:
        for module, training in training_modes.items():
            module.training = training
    logits = np.empty((len(examples), parts[0][1].shape[1]), np.float32)
    for indices, values in parts:
        logits[indices] = values
    return logits


def _predict_share(
    model: nn.Module,
    examples: TokenizedExamples,
    batch_size: int,
    device: torch.device | str,
    autocast_dtype: torch.dtype | None,
    process: int,
    num_processes: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (indices, logits) of each batch of one process: every ``num_processes``-th one."""
    batches = sorted_batches(examples.lengths, batch_size)
    use_autocast = autocast_dtype is not None
    autocast = torch.autocast(torch.device(device).type, dtype=autocast_dtype) if use_autocast else nullcontext()
    predicted = []
    # Not inference_mode: ZeRO-3 gathers weights in here, and training could not use an inference tensor afterwards.
    with torch.no_grad(), autocast:
        for first in range(0, len(batches), num_processes):
            # Sharded weights are gathered in the forward pass, by all processes together: one that has no batch
            # left computes the last batch again and drops the result, instead of leaving the others waiting.
            index = first + process
            batch_indices = batches[min(index, len(batches) - 1)]
            inputs, _ = collate(examples, batch_indices, device)
            logits = model(**accepted_inputs(model, inputs)).logits
            if index < len(batches):
                # Copied to the CPU only at the end: a copy here would make a GPU wait in every step.
                predicted.append((batch_indices, logits.float()))
    return [(batch_indices, logits.cpu().numpy()) for batch_indices, logits in predicted]


def held_out_scorer(
    run: TrainingContext, task: Task, held_out: TokenizedExamples
) -> Callable[[nn.Module], tuple[float, dict[str, float]]]:
    """Return a function that gives a model's `epoch_score` and all metrics on the held-out part of train.

    It is called within a stage, where the scores of a regression are in standard units. Of a multi-label task the
    metrics are those at the threshold that would be chosen on these examples. A language model's score is its loss,
    below 0.
    """
    if isinstance(held_out, TextWindows):
        return partial(_score_text, run, held_out)

    def score(model: nn.Module) -> tuple[float, dict[str, float]]:
        logits = logits_of(run, model, held_out, autocast_dtype(run.accelerator))
        if run.label_scale is not None:
            logits = run.label_scale.restore(logits)
        threshold = best_threshold(logits, held_out.labels) if task.multi_label else HALF
        metrics = compute_metrics(task, logits, held_out.labels, threshold)
        return epoch_score(metrics), metrics

    return score


def _score_text(run: TrainingContext, held_out: TextWindows, model: nn.Module) -> tuple[float, dict[str, float]]:
    device, dtype = run.accelerator.device, autocast_dtype(run.accelerator)
    metrics = text_metrics(token_losses(model, held_out, device=device, autocast_dtype=dtype))
    return -metrics["loss"], metrics


def settle_threshold(
    task: Task, model: nn.Module, held_out: TokenizedExamples, device: torch.device | str, *, anew: bool = False
) -> None:
    """Put the threshold of a multi-label model into its configuration; nothing is done for other tasks.

    Every process takes part.

    Args:
        held_out: examples of train that the model was not trained on.
        anew: choose one although there is one already, for a model that was trained since.
    """
    config: Any = model.config
    if not task.multi_label or (not anew and own_threshold(model) is not None):
        return
    config.threshold = best_threshold(predict_logits(model, held_out, device=device), held_out.labels)


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
    """Return the logits of every validation split, in full precision, and the metrics over them.

    Of a language model, whose logits are too many to keep, there are metrics alone.
    """
    windows = next(iter(validation.values()))
    if isinstance(windows, TextWindows):
        return {}, text_metrics(token_losses(model, windows, device=run.accelerator.device))
    logits = {name: logits_of(run, model, examples) for name, examples in validation.items()}
    labels = {name: examples.labels for name, examples in validation.items()}
    return logits, metrics_over_splits(task, logits, labels, threshold_of(model) if task.multi_label else HALF)
