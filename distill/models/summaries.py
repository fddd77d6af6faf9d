"""The token that a classifier's head reads: what can be compared between models that read other tokens.

Legend: B texts, N tokens, D width of the hidden states.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from distill.models.inputs import accepted_inputs
from distill.models.windowed_bert import ReadsWindows

SUMMARY = "summary"
"""Kind of output, beside those of `distill.models.hooks`: a layer's state of that token, (B, 1, D)."""
FIRST, LAST, MEAN = "first", "last", "mean"


def summary_token(config: Any) -> str:
    """Return what a classifier's head reads: the first real token, the last one, or the mean over all.

    XLNet and its like name it in ``summary_type``, ModernBERT in ``classifier_pooling``; models that only ever look
    back, such as GPT-2, read the last one, BERT and its relatives the first.
    """
    named = {"cls": FIRST, FIRST: FIRST, LAST: LAST, MEAN: MEAN}
    for key in ("summary_type", "classifier_pooling"):
        if getattr(config, key, None) in named:
            return named[getattr(config, key)]
    kind = config.model_type
    looks_back = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return LAST if looks_back else FIRST


def width_of(model: Any) -> int:
    """Return the width of a model's hidden states; of its embeddings where its configuration names none."""
    return int(getattr(model.config, "hidden_size", None) or model.get_input_embeddings().weight.shape[1])


@torch.no_grad()
def count_summary_layers(model: Any, inputs: Mapping[str, Tensor]) -> int:
    """Return of how many layers a classifier shows the states, on a batch of its; 0 where it shows none, or others.

    Encoder-decoders show none under that name, and a model that shortens texts on its way shows some of other shape.
    """
    if isinstance(model, ReadsWindows):  # whose blocks are read, in texts of any length
        return int(model.config.num_hidden_layers)
    states = getattr(model(**accepted_inputs(model, inputs), output_hidden_states=True), "hidden_states", None)
    shape = (*inputs["input_ids"].shape, width_of(model))
    if not states or any(each.shape != shape for each in states):
        return 0
    return len(states) - 1


def read_summaries(model: Any, layers: Sequence[int], inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Run a classifier on texts (B, N).

    Args:
        layers: counted from 0, of which the summary is wanted.

    Returns:
        ``summary``, a list of (B, 1, D), and ``logits`` (B, C).
    """
    output = model(**accepted_inputs(model, inputs), output_hidden_states=True)
    mask, token = inputs["attention_mask"].bool(), summary_token(model.config)
    return {SUMMARY: [_summary(output.hidden_states[layer + 1], mask, token) for layer in layers]} | {
        "logits": output.logits
    }


def _summary(states: Tensor, mask: Tensor, token: str) -> Tensor:
    """Return the state (B, 1, D) of one token of (B, N, D), wherever the padding stands."""
    if token == MEAN:
        real = mask[..., None]
        return (states * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
    places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    first, last = places.masked_fill(~mask, mask.shape[1]).argmin(1), places.masked_fill(~mask, -1).argmax(1)
    chosen = first if token == FIRST else last
    return states[torch.arange(len(states), device=states.device), chosen][:, None]
