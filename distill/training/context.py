"""What a stage is trained with: the run's settings, and what is read of the texts and of the teacher."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from distill.config.schema import TrainingConfig
from distill.data.batching import TokenizedExamples
from distill.objectives.capture_plan import CapturePlan
from distill.training.accelerator import RunAccelerator
from distill.training.label_scale import LabelScale


@dataclass(frozen=True)
class TrainingContext:
    """What is the same for every stage of a run."""

    accelerator: RunAccelerator
    training: TrainingConfig
    seed: int
    label_scale: LabelScale | None = None
    """Of a regression; None for classes."""
    class_weights: np.ndarray | None = None
    """(C,), of the loss labels; None where all classes count alike."""


class TeacherOutputs(Protocol):
    """What the loop needs of the teacher: its outputs for some examples, padded like the batch."""

    head_size: int

    def batch(self, indices: np.ndarray, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return captured kinds and logits for the examples at ``indices``."""


@dataclass(frozen=True)
class StageInputs:
    """What a stage reads: its texts, and which outputs of teacher and student its losses compare."""

    examples: TokenizedExamples
    plan: CapturePlan = field(default_factory=CapturePlan)
    teacher_outputs: TeacherOutputs | None = None
    """Needed unless the losses are ``labels`` and ``compression`` alone."""
    across_widths: bool = False
    """Whether layers may be of another width than those that they are compared with."""
