"""Which of the teacher's layers its decisions need most."""

from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.objectives.losses import logits_loss

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
    model: Any = teacher
    encoder = model.bert.encoder
    layers, batches = encoder.layer, _inputs(teacher, examples)
    kept = list(range(len(layers)))
    whole = [teacher(**inputs).logits for inputs in batches]

    def missed(layer: int) -> float:
        encoder.layer = nn.ModuleList(layers[index] for index in kept if index != layer)
        return sum(
            logits_loss(teacher(**inputs).logits, logits, 1.0).sum().item()
            for inputs, logits in zip(batches, whole, strict=True)
        )

    try:
        with tqdm(total=len(kept) - num_layers, desc="layers left out", unit="layer", leave=False) as bar:
            while len(kept) > num_layers:
                kept.remove(min(kept, key=missed))
                bar.update()
    finally:
        encoder.layer = layers
    return kept


def _inputs(teacher: PreTrainedModel, examples: TokenizedExamples) -> list[dict[str, torch.Tensor]]:
    device = next(teacher.parameters()).device
    order = sorted_batches(examples.lengths[:NUM_EXAMPLES], BATCH_SIZE)
    return [collate(examples, indices, device)[0] for indices in order]
