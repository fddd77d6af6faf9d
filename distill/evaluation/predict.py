"""Logits of every example, once, whatever the batch size and the number of processes."""

from contextlib import nullcontext

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn

from distill.data.batching import TokenizedExamples, collate, sorted_batches

BATCH_SIZE = 64


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
            batch = collate(examples, batch_indices, device)
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
            logits = model(**inputs).logits
            if index < len(batches):
                # Copied to the CPU only at the end: a copy here would make a GPU wait in every step.
                predicted.append((batch_indices, logits.float()))
    return [(batch_indices, logits.cpu().numpy()) for batch_indices, logits in predicted]
