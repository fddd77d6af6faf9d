"""The few dimensions of queries and keys that keep most of their products.

Shapes: B batch, N sequence length, H heads, d head size, r dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .masking import full_precision

RIDGE = 1e-4
"""Of the mean square of a dimension, added to its variance: those that hold nothing are not blown up."""


class FewDimensions(NamedTuple):
    """Maps P and R after which (P q)·(R (k - k̄)) is nearest to q·(k - k̄)."""

    query: Tensor
    """P, (H, r, d)."""
    key: Tensor
    """R, (H, r, d)."""
    key_mean: Tensor
    """k̄, (H, d)."""
    root_mean_square: Tensor
    """Of the products that are kept, (H,)."""


def few_dimensions(query: Tensor, key: Tensor, mask: Tensor | None, dimensions: int) -> FewDimensions:
    """Find the r dimensions of queries and keys (B, H, N, d) that keep most of the products of real tokens' pairs.

    With A = E[q qᵀ], C = E[(k - k̄)(k - k̄)ᵀ] and the singular vectors of A^½ C^½ = U S Vᵀ, the product of rank r with
    the least mean squared error over all pairs of a query and a key has P = √S_r U_rᵀ A^-½ and R = √S_r V_rᵀ C^-½
    (the Eckart-Young theorem for whitened queries and keys). Beyond d dimensions the rows are 0.
    """
    with full_precision(query):
        real = torch.ones_like(query[:, 0, :, 0], dtype=torch.bool) if mask is None else mask
        query, key = (tensor.transpose(1, 2)[real].transpose(0, 1).double() for tensor in (query, key))
        key_mean = key.sum(1) / max(1, key.shape[1])
        query_root, query_inverse = _roots(query, query)
        key_root, key_inverse = _roots(key - key_mean.unsqueeze(1), key)
        left, values, right = torch.linalg.svd(query_root @ key_root)
        root = values[..., :dimensions].sqrt().unsqueeze(-1)
        rows = [root * left.mT[:, :dimensions] @ query_inverse, root * right[:, :dimensions] @ key_inverse]
        missing = dimensions - rows[0].shape[1]
        query_map, key_map = (F.pad(each, (0, 0, 0, max(0, missing))) for each in rows)
        kept = values[..., :dimensions].square().sum(-1).sqrt()
        return FewDimensions(query_map.float(), key_map.float(), key_mean.float(), kept.float())


def _roots(rows: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Return the root of the second moments of rows (H, M, d), and its inverse; ``whole`` is with their mean."""
    count = max(1, rows.shape[1])
    moments = rows.mT @ rows / count
    ridge = RIDGE * whole.square().sum((-2, -1)) / (count * rows.shape[-1]) + torch.finfo(torch.float32).tiny
    moments = moments + ridge.view(-1, 1, 1) * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp(min=torch.finfo(torch.float32).tiny)
    return vectors * values.sqrt().unsqueeze(-2) @ vectors.mT, vectors * values.rsqrt().unsqueeze(-2) @ vectors.mT
