"""What is measured, and under which conditions: the same for all models, or their ratio means nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Conditions:
    """Where and how all models run while they are measured; those given are copied and stay where they are."""

    device: torch.device | str
    dtype: torch.dtype
    """Of all weights and activations."""
    vocabulary_size: int
    """Of the random input."""
    compiled: bool = False
    """Run all models through torch.compile."""

    @property
    def place(self) -> dict[str, str]:
        """The two keys of a record's point that say where it was measured."""
        return {"device": torch.device(self.device).type, "dtype": str(self.dtype).removeprefix("torch.")}

    def compile(self, model: nn.Module) -> Callable[..., Any]:
        """Return what is called to run a model."""
        return torch.compile(model) if self.compiled else model


@dataclass(frozen=True)
class Models:
    """The models of a comparison: sequence classifiers of one interface and vocabulary, with the same labels."""

    teacher: PreTrainedModel
    student: PreTrainedModel
    baseline: PreTrainedModel | None = None
    """The same student trained on labels alone, or None; it is not measured."""
    control: PreTrainedModel | None = None
    """Softmax student of the student's depth, for speed only, or None: the two parts of a speedup are then null."""
    full_width: PreTrainedModel | None = None
    """The control with layers as wide as the teacher's, for speed only; None where the student's are."""
    folders: Mapping[str, Path | str] | None = None
    """Checkpoints of teacher and student for processes that load them afresh, running the student's own code there;
    None: memory is not measured."""

    @property
    def timed(self) -> dict[str, PreTrainedModel]:
        """Those whose speed is measured, by role."""
        return self._those("teacher", "student", "control", "full_width")

    @property
    def compared(self) -> dict[str, PreTrainedModel]:
        """Those whose answers are compared, by role."""
        return self._those("teacher", "student", "baseline")

    def _those(self, *roles: str) -> dict[str, PreTrainedModel]:
        return {role: model for role in roles if (model := getattr(self, role)) is not None}
