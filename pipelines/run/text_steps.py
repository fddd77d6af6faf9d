"""What an optimizer step of a language model costs: its time, interleaved with others, and what it keeps in memory."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from distill.benchmark.timing import BLOCKS, PointError, memory_errors, time_interleaved
from distill.data.token_predictions import labels_at, places_to_predict, predicting
from distill.evaluation.text_record import TrainingStep
from distill.objectives.losses import token_labels_loss
from distill.preflight.memory_estimate import saved_bytes
from distill.utils.record_json import unmeasured

STUDENT_T = 2.571
"""Of 6 blocks, 5 degrees of freedom, for an interval of 95 %."""


def time_steps(
    models: Mapping[str, PreTrainedModel],
    inputs: torch.Tensor,
    labels: torch.Tensor,
    dtype: torch.dtype | None,
    seconds: float,
) -> tuple[TrainingStep, ...]:
    """Time a step of every model in the same rounds, forward, backward and AdamW; copies of the models move.

    Args:
        models: by name.
        inputs: (B, N) tokens, on the models' device.
        labels: (B, N), the tokens to be predicted.
        dtype: of autocast; None: as the weights are.
        seconds: for all of them together.
    """
    size, length = inputs.shape
    synchronize = torch.cuda.synchronize if inputs.device.type == "cuda" else lambda: None
    try:
        with memory_errors():
            times = time_interleaved(
                lambda: {name: make_step(model, inputs, labels, dtype) for name, model in models.items()},
                seconds=seconds,
                synchronize=synchronize,
            )
    except PointError as error:
        points = {"length": length, "batch_size": size, "reason": str(error)}
        return tuple(unmeasured(TrainingStep, model=name, **points) for name in models)
    found = []
    for name, model in models.items():
        blocks = np.log(1000 * np.median(times[name], axis=1))
        middle, spread = blocks.mean(), STUDENT_T * blocks.std(ddof=1) / np.sqrt(BLOCKS)
        low, middle, high = (float(np.exp(value)) for value in (middle - spread, middle, middle + spread))
        trained = copy.deepcopy(model).requires_grad_(True)
        kept = saved_bytes(trained, size, length, dtype, places_to_predict(labels, reads_logits=True)) / 1e6
        found.append(TrainingStep(name, length, size, middle, low, high, kept))
    return tuple(found)


def make_step(
    model: PreTrainedModel, inputs: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype | None
) -> Callable[[], None]:
    """Return a function that takes one AdamW step of a copy of the model."""
    trained: Any = copy.deepcopy(model).train().requires_grad_(True)
    device, places = inputs.device.type, places_to_predict(labels, reads_logits=True)
    labels = labels_at(labels, places)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.0, fused=device in ("cpu", "cuda"))

    def step() -> None:
        with torch.autocast(device, dtype, enabled=dtype is not None), predicting(trained, places):
            logits = trained(input_ids=inputs).logits
        token_labels_loss(logits, labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
