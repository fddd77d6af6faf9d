"""The student's layers: BERT's own, with another self-attention where BERT's stands.

Every module sits where BERT has it, so that weights copy by name and one forward hook serves teacher and student.
Shapes: B batch, N sequence length, D hidden size, H heads.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.bert.modeling_bert import BertOutput, BertSelfOutput

from .attention import ATTENTIONS
from .attention.ops.masking import makes_graph
from .configuration import StudentConfig

MOST_UNITS = 2**20
"""So many feed-forward units, 4 MB in fp32, are computed at once where no gradient is wanted."""


class StudentAttention(nn.Module):
    """One attention block: the mechanism, then BERT's output projection, residual and normalisation."""

    def __init__(self, config: StudentConfig, layer: int) -> None:
        super().__init__()
        own = config.of_layer(layer)
        self.self = ATTENTIONS[config.attention_of_layer(layer)](own, layer)
        self.output = BertSelfOutput(config)
        if not self.self.has_output_projection:
            self.output.dense = nn.Identity()  # type: ignore[assignment]
        elif own.attention_size != config.hidden_size:
            self.output.dense = nn.Linear(own.attention_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, state: Any, first_token_only: bool
    ) -> tuple[Tensor, Any]:
        context, state = self.self(hidden_states, mask, state, first_token_only)
        return self.output(context, hidden_states[:, : context.shape[1]]), state


def parts_of_tokens(hidden_states: Tensor, intermediate_size: int) -> Sequence[Tensor]:
    """Cut (B, N, D) hidden states, where their feed-forward units take much memory, into some of (1, n, D).

    Every token is computed by itself, so that the parts together are the whole. On a CPU units of all tokens at once
    leave its caches, and blocks as large as theirs are given back to the system and cleared anew at every layer.
    """
    tokens = hidden_states.shape[0] * hidden_states.shape[1]
    if makes_graph() or torch.is_grad_enabled() or hidden_states.device.type != "cpu":
        return [hidden_states]
    count = math.ceil(tokens * intermediate_size / MOST_UNITS)
    return [hidden_states] if count <= 1 else hidden_states.flatten(0, 1)[None].split(math.ceil(tokens / count), 1)


def is_watched(module: nn.Module) -> bool:
    """Tell whether somebody hooked the module or one in it, and expects all tokens there in their places."""
    return any(
        each._forward_hooks or each._forward_pre_hooks or hasattr(each, "_hf_hook") for each in module.modules()
    )


class StudentLayer(GradientCheckpointingLayer):
    """One encoder layer on (B, N, D) hidden states, and on the state that some mechanisms carry between layers."""

    def __init__(self, config: StudentConfig, layer: int) -> None:
        super().__init__()
        own = config.of_layer(layer)
        self.attention = StudentAttention(config, layer)
        self.intermediate = self.attention.self.make_intermediate(own)
        self.output = BertOutput(own)
        self.intermediate_size = self.output.dense.in_features

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, state: Any, first_token_only: bool = False
    ) -> tuple[Tensor, Any]:
        attention_output, state = self.attention(hidden_states, mask, state, first_token_only)
        return self.feed_forward(attention_output), state

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        """Return (B, N, D) after the feed-forward layer, computed in parts where that is faster."""
        parts = parts_of_tokens(hidden_states, self.intermediate_size)
        if len(parts) > 1 and (is_watched(self.intermediate) or is_watched(self.output)):
            parts = [hidden_states]
        outputs = [self.output(self.intermediate(part), part) for part in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1).view_as(hidden_states)


class StudentEncoder(nn.Module):
    """The stack of layers; its (B, N) mask is bool, or None where every token is real."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([StudentLayer(config, layer) for layer in range(config.num_hidden_layers)])

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, first_token_only: bool = False
    ) -> tuple[Tensor, ...]:
        """Return the input of the first layer and the output of each; of the last, on request, the first token's."""
        all_hidden_states = [hidden_states]
        state = None
        for layer in self.layer:
            is_last = layer is self.layer[-1]
            hidden_states, state = layer(hidden_states, mask, state, first_token_only and is_last)
            all_hidden_states.append(hidden_states)
        return tuple(all_hidden_states)

    def look_back(self, hidden_states: Tensor, states: Sequence[Any]) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """Return the input of the first layer and the output of each, every token seeing itself and those before it.

        Args:
            hidden_states: (B, N, D), of the new tokens.
            states: of every layer, what it kept of the tokens before them; None where there are none.

        Returns:
            The hidden states, each (B, N, D), and the states of the layers after these tokens.
        """
        all_hidden_states, kept = [hidden_states], []
        for layer, state in zip(self.layer, states, strict=True):
            hidden_states, state = layer(hidden_states, None, state)
            all_hidden_states.append(hidden_states)
            kept.append(state)
        return tuple(all_hidden_states), tuple(kept)

    def attention_maps(self, all_hidden_states: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, ...]:
        """Return the map (B, H, N, N) of every layer, of what ``forward`` returned; ValueError where one has none."""
        layers: Sequence[Any] = list(self.layer)
        inputs = all_hidden_states[:-1]
        return tuple(layer.attention.self.weights(states, mask) for layer, states in zip(layers, inputs, strict=True))
