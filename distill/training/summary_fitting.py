"""The maps of a stage that matches the summaries of a teacher with other tokens, as they start."""

import numpy as np
import torch
from transformers import PreTrainedModel

from distill.data.batching import collate, sorted_batches
from distill.models.hooks import capture
from distill.models.summaries import SUMMARY
from distill.objectives.summary_maps import SummaryMap, fit_summary_map
from distill.training.context import StageInputs

NUM_EXAMPLES = 1024
BATCH_SIZE = 64


@torch.no_grad()
def starting_maps(model: PreTrainedModel, inputs: StageInputs) -> list[SummaryMap]:
    """Return one map for every layer whose summary a stage matches, fitted to examples from all over train.

    A stage that matches no summaries has none. The model stays as it is, and no random number is drawn: a resumed
    stage starts from the same maps before its checkpoint replaces them.
    """
    source = inputs.teacher_outputs
    if SUMMARY not in inputs.plan.teacher or source is None:
        return []
    count = len(inputs.examples)
    chosen = np.linspace(0, count - 1, min(NUM_EXAMPLES, count)).astype(np.int64)
    device, was_training = model.device, model.training
    student: list[list[torch.Tensor]] = [[] for _ in inputs.plan.teacher[SUMMARY]]
    teacher: list[list[torch.Tensor]] = [[] for _ in inputs.plan.teacher[SUMMARY]]
    model.eval()
    for places in sorted_batches(inputs.examples.lengths[chosen], BATCH_SIZE):
        batch, _ = collate(inputs.examples, chosen[places], device)
        with capture(model, {"hidden_states": inputs.plan.student["hidden_states"]}, True) as captured:
            model(**batch)
        targets = source.batch(chosen[places], batch)[SUMMARY]
        for layer, (states, expected) in enumerate(zip(captured["hidden_states"], targets, strict=True)):
            student[layer].append(states[:, 0])
            teacher[layer].append(expected[:, 0])
    model.train(was_training)
    pairs = zip(student, teacher, strict=True)
    return [fit_summary_map(torch.cat(states), torch.cat(expected)) for states, expected in pairs]
