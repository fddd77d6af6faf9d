"""Which of the teacher's layers its decisions need most."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.models.hooks import encoder_layers
from distill.objectives.losses import logits_loss
from distill.tasks import MULTI_LABEL

NUM_EXAMPLES = 512
BATCH_SIZE = 64


@torch.no_grad()
def most_needed_layers(teacher: PreTrainedModel, examples: TokenizedExamples, num_layers: int) -> list[int]:
    """Return the layers that are left when the one that is missed least goes, again and again, until few are left.

    A layer is missed by as much as the logits change without it: Kullback-Leibler divergence, or squared error of a
    regression, over the first examples (at most 512). https://arxiv.org/abs/2004.03844 leaves layers out in fixed
    orders; here each is tried.

    Args:
        teacher: in eval mode, and left as it was.
        examples: of train; their labels are not read.
    """
    batches = _inputs(teacher, examples)
    kept = list(range(len(encoder_layers(teacher))))
    several = teacher.config.problem_type == MULTI_LABEL
    whole = [teacher(**inputs).logits for inputs in batches]

    def missed(layer: int) -> float:
        with only_layers(teacher, {index for index in kept if index != layer}):
            return sum(
                logits_loss(teacher(**inputs).logits, logits, 1.0, multi_label=several).sum().item()
                for inputs, logits in zip(batches, whole, strict=True)
            )

    with tqdm(total=len(kept) - num_layers, desc="layers left out", unit="layer", leave=False) as bar:
        while len(kept) > num_layers:
            kept.remove(min(kept, key=missed))
            bar.update()
    return kept


@contextmanager
def only_layers(model: PreTrainedModel, kept: Set[int]) -> Iterator[None]:
    """Let a model compute some of its layers only, while the block runs; the others pass on what they are given."""
    layers = encoder_layers(model)
    modules = list(dict.fromkeys(layers))
    for module in modules:
        turns = [index for index, layer in enumerate(layers) if layer is module]
        module.forward = partial(_forward, module.forward, [index in kept for index in turns], count())
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # that of the object; its class's is seen again


def _forward(
    forward: Any, wanted: list[bool], calls: Iterator[int], hidden_states: Tensor, *more: Any, **how: Any
) -> Any:
    """Compute a layer the times it is wanted; a module that several layers share is called for each in turn."""
    return forward(hidden_states, *more, **how) if wanted[next(calls) % len(wanted)] else hidden_states


def _inputs(teacher: PreTrainedModel, examples: TokenizedExamples) -> list[dict[str, torch.Tensor]]:
    device = next(teacher.parameters()).device
    order = sorted_batches(examples.lengths[:NUM_EXAMPLES], BATCH_SIZE)
    return [collate(examples, indices, device)[0] for indices in order]
