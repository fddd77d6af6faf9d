"""The linear maps of a stage that compares states of different widths, as they start."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.data.batching import collate, sorted_batches
from distill.models.hooks import capture
from distill.models.summaries import SUMMARY
from distill.objectives.linear_maps import LinearMap, Moments
from distill.objectives.summary_maps import SummaryMap
from distill.training.context import StageInputs

NUM_EXAMPLES, NUM_TOKENS = 1024, 32_768
"""Texts, and tokens of them, that the maps are fitted to, at most."""
BATCH_SIZE = 64
MAPPED = ("hidden_states", "attention_output", "attention_context")
"""Kinds whose error is squared, token by token: they are compared in the target's width."""


@torch.no_grad()
def starting_maps(model: PreTrainedModel, inputs: StageInputs) -> list[LinearMap]:
    """Return one map for every output of a layer whose width is not that of its target, fitted to some of train.

    Where summaries of a teacher with other tokens are matched, every layer has one. A stage whose outputs are as wide
    as their targets has none. The model stays as it is, and no random number is drawn: a resumed stage starts from the
    same maps before its checkpoint replaces them.
    """
    source, plan = inputs.teacher_outputs, inputs.plan
    summaries = SUMMARY in plan.teacher
    kinds = ["hidden_states"] if summaries else [kind for kind in MAPPED if kind in plan.student]
    if source is None or not kinds or not (summaries or inputs.across_widths):
        return []
    was_training = model.training
    model.eval()
    moments: dict[tuple[str, int], Moments] = {}
    for student, teacher, mask in _read(model, inputs, kinds):
        for kind in kinds:
            targets = teacher[SUMMARY if summaries else kind]
            for place, (states, expected) in enumerate(zip(student[kind], targets, strict=True)):
                if summaries or states.shape[-1] != expected.shape[-1]:
                    rows = _rows(states, mask, summaries), _rows(expected, mask, summaries or states.shape[1] == 1)
                    moments.setdefault((kind, place), Moments()).add(*rows)
    model.train(was_training)
    if summaries:
        return [SummaryMap(*each.regression(), each.spread()) for each in moments.values()]
    return [LinearMap(*each.regression(), kind, place) for (kind, place), each in moments.items()]


def _read(
    model: PreTrainedModel, inputs: StageInputs, kinds: list[str]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Tensor]]:
    """Yield what student and teacher return for some examples, and which tokens are real."""
    source, plan, examples = inputs.teacher_outputs, inputs.plan, inputs.examples
    assert source is not None
    count = len(examples)
    chosen = np.linspace(0, count - 1, min(NUM_EXAMPLES, count)).astype(np.int64)
    spread_out = np.random.default_rng(0).permutation(chosen)
    few = spread_out[: max(1, int((examples.lengths[spread_out].cumsum() <= NUM_TOKENS).sum()))]
    for places in sorted_batches(examples.lengths[few], BATCH_SIZE):
        batch, _ = collate(examples, few[places], model.device)
        with capture(model, {kind: plan.student[kind] for kind in kinds}, plan.first_token_only) as captured:
            model(**batch)
        yield captured, source.batch(few[places], batch), batch["attention_mask"].bool()


def _rows(states: Tensor, mask: Tensor, first_token: bool) -> Tensor:
    """Return the real tokens (n, D) of states (B, N, D), or the first ones alone, in double precision."""
    alone = first_token or states.shape[1] == 1
    return (states[:, 0] if alone else states[mask]).double()
