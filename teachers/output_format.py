"""How an output of the teacher lies on disk: a byte per number, with the range of its token, and nothing twice.

Legend: T tokens, D hidden size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.models.summaries import SUMMARY
from distill.objectives.capture_plan import CapturePlan

LEVELS = 255
OF_FIRST_TOKEN = ("attention_context", "attention_output", "hidden_states")
"""What a last layer that computes the first token alone has of that token alone."""

OF_HEADS = ("query", "key", "value", "attention_context")
"""What is as wide as the heads of a layer."""


@dataclass(frozen=True, order=True)
class Output:
    """One output of one layer of the teacher, of all tokens or of the first ones."""

    kind: str
    layer: int
    first_token: bool = False

    def path(self, folder: Path) -> Path:
        """Return where it lies."""
        tokens = "-first-token" if self.first_token else ""
        return folder / f"{self.kind}-layer-{self.layer}{tokens}-uint8.npy"

    def rows(self, num_texts: int, num_tokens: int) -> int:
        """Return how many rows it has on so many texts of so many tokens."""
        return num_texts if self.first_token else num_tokens

    def bytes(self, num_texts: int, num_tokens: int, hidden_size: int) -> int:
        """Return what it takes on disk, but for a header."""
        return self.rows(num_texts, num_tokens) * row_type(hidden_size).itemsize


def outputs_of(plan: CapturePlan) -> dict[str, list[Output]]:
    """Return where everything that a stage matches is found, kind by kind, in the order of its layers.

    What a layer reads is what the layer below it hands on. Of the last layer the first token is kept alone where no
    other is matched; a summary is one token's anyway.
    """
    return {
        kind: [
            _stored(kind, layer, plan.first_token_only and kind in OF_FIRST_TOKEN and place == len(layers) - 1)
            for place, layer in enumerate(layers)
        ]
        for kind, layers in plan.teacher.items()
    }


def _stored(kind: str, layer: int, first_token: bool) -> Output:
    below = kind == "layer_input" and layer > 0
    return Output("hidden_states", layer - 1) if below else Output(kind, layer, first_token or kind == SUMMARY)


def row_type(hidden_size: int) -> np.dtype:
    """Return the type of a row: the lowest number of a token, the step between two levels, and D levels."""
    return np.dtype([("low", "<f4"), ("step", "<f4"), ("levels", "u1", (hidden_size,))])


def pack(states: Tensor) -> np.ndarray:
    """Round finite states (T, D) to 256 levels between the lowest and the highest number of each token.

    Returns:
        (T,) of :func:`row_type`.
    """
    states = states.float()
    low, high = states.aminmax(dim=-1)
    step = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    levels = ((states - low[:, None]) / step[:, None]).round().to(torch.uint8)
    rows = np.empty(len(states), row_type(states.shape[-1]))
    for name, values in (("low", low), ("step", step), ("levels", levels)):
        rows[name] = values.cpu().numpy()
    return rows


def unpack(rows: np.ndarray, device: torch.device) -> Tensor:
    """Return the states (T, D), float32, of rows (T,) that :func:`pack` made."""
    names = ("low", "step", "levels")
    low, step, levels = (torch.from_numpy(np.ascontiguousarray(rows[name])).to(device) for name in names)
    return torch.addcmul(low[:, None], levels.float(), step[:, None])
