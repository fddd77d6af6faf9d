"""Orthogonal Gaussian projections, which random features are made with.

Yu et al., "Orthogonal Random Features", https://arxiv.org/abs/1610.09072; Choromanski et al., "Rethinking Attention
with Performers", https://arxiv.org/abs/2009.14794: orthogonal rows estimate a kernel with less variance than
independent ones.

Shapes: d head size, m features.
"""

import math

import torch
from torch import Tensor


def draw_projection(num_features: int, head_size: int, generator: torch.Generator) -> Tensor:
    """Draw an (m, d) fp32 projection: orthogonal blocks of d rows, each row as long as a Gaussian row (chi_d).

    ``generator`` must be a CPU generator: the same seed then gives the same projection on every machine.
    """
    num_blocks = math.ceil(num_features / head_size)
    gaussian = torch.randn(num_blocks, head_size, head_size, generator=generator, dtype=torch.float64)
    orthogonal = _haar(*torch.linalg.qr(gaussian))
    directions = orthogonal.mT.reshape(-1, head_size)[:num_features]
    norms = torch.randn(num_features, head_size, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
    return (directions * norms).float()


def _haar(q_factor: Tensor, r_factor: Tensor) -> Tensor:
    """Flip the columns of Q so that R has a positive diagonal; Q as LAPACK returns it is not uniformly distributed."""
    return q_factor * r_factor.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
