"""The unit of a regression's scores, taken out of training: what is learned does not depend on it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.models.labels import output_layer
from distill.utils.errors import UserError

REFERENCE_MEAN, REFERENCE_DEVIATION = 2.7, 1.5
"""Of train scores in standard units: those of STS-B, on which learning rates were chosen. With mean 0 and deviation 1,
teachers of few pairs learn their scores by heart sooner (notebooks/LOG.md)."""
FINEST = 1e-5
"""Deviation over the size of the scores, below which the single precision of a model's output blurs them."""


@dataclass(frozen=True)
class LabelScale:
    """How scores in label units follow from those in standard units: times ``factor``, plus ``shift``.

    Between stages a model predicts in label units; in a stage its head is scaled to standard units, in which learning
    rates, losses and half precision mean the same for scores of 0 to 5 and of 10^5.
    """

    shift: float
    factor: float

    def standardise(self, scores: Tensor) -> Tensor:
        """Turn scores in label units, of any shape, into float32 ones in standard units."""
        return ((scores.double() - self.shift) / self.factor).float()

    def restore(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits in standard units, of any shape, into float32 ones in label units."""
        return (logits.astype(np.float64) * self.factor + self.shift).astype(np.float32)

    def standardise_head(self, model: PreTrainedModel) -> None:
        """Scale the classifier in place, so that a model of label units predicts in standard units."""
        self._scale_head(model, 1 / self.factor, -self.shift / self.factor)

    def restore_head(self, model: PreTrainedModel) -> None:
        """Scale the classifier in place, so that a model of standard units predicts in label units."""
        self._scale_head(model, self.factor, self.shift)

    @torch.no_grad()
    def _scale_head(self, model: PreTrainedModel, factor: float, shift: float) -> None:
        head = output_layer(model, 1)
        if head is None or head.bias is None:
            raise UserError(
                f"a {model.config.model_type!r} ends without a linear layer with a bias, which the scores of a "
                "regression need; give a teacher of another family, such as a DeBERTa"
            )
        head.weight.copy_(head.weight.double() * factor)
        head.bias.copy_(head.bias.double() * factor + shift)


def measure_label_scale(scores: np.ndarray) -> LabelScale:
    """Return the scale on which train scores (n,), not all of which are equal, have the reference mean and deviation.

    Raises:
        UserError: they lie so close together, far from 0, that single precision cannot tell them apart.
    """
    exact = scores.astype(np.float64)
    mean, deviation = float(exact.mean()), float(exact.std())
    if deviation < FINEST * abs(mean):
        raise UserError(
            f"train: scores of {mean:.6g} on average differ by {deviation:.2g} only, too little for single precision; "
            "subtract a constant from all of them"
        )
    factor = deviation / REFERENCE_DEVIATION
    return LabelScale(mean - REFERENCE_MEAN * factor, factor)
