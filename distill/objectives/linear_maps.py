"""Linear maps between states of different widths, by least squares over as many tokens as one likes.

FitNets (https://arxiv.org/abs/1412.6550, §2.1) and TinyBERT (https://arxiv.org/abs/1909.10351, eq. 8) learn them from
a random start, and spend the first hundreds of steps on that. Here they start as the ridge regression of the target's
states on the student's, so that from the first step on the loss says what no linear map can give.

Legend: n examples, S width of what is read, T of what it is mapped to.
"""

import torch
from torch import Tensor, nn

RIDGE = 0.1
"""Of the sum of the variances of the states that are read, added to each as if from one more example: as many examples
as the states have dimensions shrink an average direction by a tenth, and a few say little of the smaller ones."""


class LinearMap(nn.Module):
    """An affine map (..., S) -> (..., T) of what one layer of a student returns.

    Args:
        weight: (T, S).
        bias: (T,).
        kind: what of the layer is mapped, one of `distill.models.hooks.CAPTURABLE`.
        place: of the layer among those that a stage captures.
    """

    def __init__(self, weight: Tensor, bias: Tensor, kind: str = "hidden_states", place: int = 0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.kind, self.place = kind, place

    def map(self, states: Tensor) -> Tensor:
        """Return the mapped states (..., T)."""
        return nn.functional.linear(states, self.weight, self.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return the mapped states (..., T)."""
        return self.map(states)


class Moments:
    """Sums over pairs of states, of which the regression of one on the other follows.

    Products are taken around the first batch's means, in the precision of the states, and added up in double.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origins: tuple[Tensor, Tensor] | None = None
        self._sums: tuple[Tensor, ...] = ()

    def add(self, states: Tensor, targets: Tensor) -> None:
        """Count states (n, S) and the targets (n, T) that belong to them."""
        if self._origins is None:
            self._origins = states.mean(0), targets.mean(0)
        states, targets = states - self._origins[0], targets - self._origins[1]
        sums = states.sum(0), targets.sum(0), states.T @ states, states.T @ targets, targets.square().sum()
        doubled = tuple(each.double() for each in sums)
        added = zip(self._sums, doubled, strict=True)
        self._sums = tuple(one + other for one, other in added) if self._sums else doubled
        self.count += len(states)

    def regression(self, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return weight (T, S) and bias (T,) of the ridge regression of the targets on the states, in fp32.

        Args:
            kept: the dimensions of the states that are read, where not all are.
        """
        assert self._origins is not None, "there is nothing to fit"
        states, targets, gram, cross, _ = self._sums
        origins = [each.double() for each in self._origins]
        gram, cross = (
            gram - torch.outer(states, states) / self.count,
            cross - torch.outer(states, targets) / self.count,
        )
        mean, target_mean = origins[0] + states / self.count, origins[1] + targets / self.count
        if kept is not None:
            gram, cross, mean = gram[kept][:, kept], cross[kept], mean[kept]
        ridge = RIDGE * gram.diagonal().sum() / self.count + torch.finfo(torch.float32).tiny
        gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weight = torch.linalg.solve(gram, cross).T
        return weight.float().contiguous(), (target_mean - weight @ mean).float()

    def spread(self) -> Tensor:
        """Return the mean squared distance () of the targets from their mean, in fp32."""
        _, targets, _, _, squares = self._sums
        return ((squares - targets.square().sum() / self.count) / self.count).float()
