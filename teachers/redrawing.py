"""Parts of a checkpoint that are drawn anew before it is fine-tuned."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from distill.config.schema import TeacherConfig
from students.families import encoder_layers


@dataclass(frozen=True)
class Redrawn:
    """What is drawn anew; each on top of what the checkpoint lacks."""

    pooler: bool | None = False
    """None: where it was never trained."""
    head: bool = False
    """Also of a finished classifier, which is then fine-tuned."""
    layers: int = 0
    """The top ones, so many."""


def wanted_by(settings: TeacherConfig) -> Redrawn:
    """Return what a configuration wants drawn anew of its teacher."""
    return Redrawn(settings.new_pooler, settings.new_head, settings.new_layers)


@torch.no_grad()
def redraw(model: PreTrainedModel, modules: list[nn.Module]) -> None:
    """Draw the weights of modules as those of a new model are drawn, from the global random state."""
    for module in modules:
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # else it counts as loaded
            model._init_weights(part)


def top_layers(model: Any, count: int) -> list[nn.Module]:
    """Return the last ``count`` layers.

    Raises:
        ValueError: there are not so many, or they share their weights with others.
    """
    layers = encoder_layers(model)
    if count > len(layers):
        raise ValueError(f"it has {len(layers)} layers")
    if len({id(layer) for layer in layers}) < len(layers):
        raise ValueError("its layers share their weights")
    return layers[len(layers) - count :]
