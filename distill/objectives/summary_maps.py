"""Learned linear maps from a student's first token to what its teacher's head reads, for models of different widths.

FitNets (https://arxiv.org/abs/1412.6550, §2.1) and TinyBERT (https://arxiv.org/abs/1909.10351, eq. 8) learn them from
a random start, and spend the first hundreds of steps on that. Here they start as the ridge regression of the teacher's
states on the student's, so that from the first step on the loss says what no linear map can give.

Legend: n examples, B batch, S width of the student, T of the teacher.
"""

import torch
from torch import Tensor, nn

RIDGE = 0.1
"""Of the sum of the variances of the student's states, added to each as if from one more example: as many examples as
the states have dimensions shrink an average direction by a tenth, and a few say little of the smaller ones."""


class SummaryMap(nn.Module):
    """An affine map (B, S) -> (B, T), and the unit in which its errors count.

    Args:
        weight: (T, S).
        bias: (T,).
        spread: (), the mean squared distance of the teacher's states from their mean.
    """

    spread: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("spread", spread)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mapped states (B, T), and the unit ()."""
        return nn.functional.linear(states, self.weight, self.bias), self.spread


def fit_summary_map(states: Tensor, targets: Tensor) -> SummaryMap:
    """Return the ridge regression of ``targets`` (n, T) on ``states`` (n, S); n may be less than S."""
    student, teacher = states.double(), targets.double()
    student_mean, teacher_mean = student.mean(0), teacher.mean(0)
    student, teacher = student - student_mean, teacher - teacher_mean
    gram = student.T @ student
    ridge = RIDGE * gram.diagonal().sum() / len(student) + torch.finfo(torch.float32).tiny
    gram.diagonal().add_(ridge)
    weight = torch.linalg.solve(gram, student.T @ teacher).T
    spread = teacher.square().sum(1).mean()
    return SummaryMap(weight.float().contiguous(), (teacher_mean - weight @ student_mean).float(), spread.float())
