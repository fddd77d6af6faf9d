"""Learned linear maps from a student's first token to what its teacher's head reads, for models of other tokens.

Legend: n examples, B batch, S width of the student, T of the teacher.
"""

from torch import Tensor

from distill.objectives.linear_maps import LinearMap, Moments


class SummaryMap(LinearMap):
    """An affine map (B, S) -> (B, T), and the unit in which its errors count.

    Args:
        weight: (T, S).
        bias: (T,).
        spread: (), the mean squared distance of the teacher's states from their mean.
    """

    spread: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, spread: Tensor) -> None:
        super().__init__(weight, bias)
        self.register_buffer("spread", spread)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the mapped states (B, T), and the unit ()."""
        return self.map(states), self.spread


def fit_summary_map(states: Tensor, targets: Tensor) -> SummaryMap:
    """Return the ridge regression of ``targets`` (n, T) on ``states`` (n, S); n may be less than S."""
    moments = Moments()
    moments.add(states.double(), targets.double())
    return SummaryMap(*moments.regression(), moments.spread())
