"""FAVOR+, the positive random-feature estimate of softmax attention, linear in the sequence length.

Choromanski et al., "Rethinking Attention with Performers", https://arxiv.org/abs/2009.14794: for rows w of an
orthogonal Gaussian projection, exp(x·y) = E[exp(w·x - |x|²/2) exp(w·y - |y|²/2)] with x = q / d^¼ and y = k / d^¼, so
that the features of the keys can be summed before a query is looked at.

Two things differ from the published code, which is biased and turns into mean pooling for BERT-sized queries and keys:
the QR sign is fixed, and the stabiliser is one maximum per FEATURE over the real keys, given back to the queries. It
cancels exactly and keeps the denominator at 1 or above, so that no epsilon is needed.

Shapes: B batch, N sequence length, H heads, d head size, m features.
"""

import difflib
import math

import torch
from torch import Tensor

FORMS = ("auto", "linear", "two_attention", "quadratic")


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


def favor_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor, form: str = "linear"
) -> Tensor:
    """Attend by random features and return (B, H, N, d) in ``value``'s dtype.

    Query, key and value are (B, H, N, d), the projection is (m, d) or, one per head, (H, m, d), and the mask is (B, N)
    bool, True at real tokens. All forms give the same numbers: ``linear`` O(Nmd); ``two_attention`` reads it as the
    projection attending to the keys and the queries to the projection; ``quadratic`` O(N²(m + d)), cheaper for N < m;
    ``auto`` takes the cheapest. Computes in fp32 (fp64 for fp64 inputs), under autocast too. An example without real
    tokens gives zeros.
    """
    if form not in FORMS:
        nearest = difflib.get_close_matches(form, FORMS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"FAVOR+ form {form!r} is unknown; choose one of {', '.join(FORMS)}{hint}")
    with torch.autocast(query.device.type, enabled=False):
        context = _attend(*_prepare(query, key, value, mask, projection), form)
    return context.to(value.dtype)


def favor_attention_map(query: Tensor, key: Tensor, mask: Tensor | None, projection: Tensor) -> Tensor:
    """Return the (B, H, N, N) row-stochastic map that ``favor_attention`` applies to the values; O(N²m)."""
    with torch.autocast(query.device.type, enabled=False):
        query, key, _, key_bias, projection = _prepare(query, key, key, mask, projection)
        query_features, key_features = _features(query, key, key_bias, projection)
        weights = query_features @ key_features.mT
        weights = weights / weights.sum(-1, keepdim=True)
        return weights if mask is None else weights.masked_fill(~mask[:, None, None, :], 0)


def _prepare(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cast, blank the pads, scale the projection by d^-¼ and compute the keys' bias -|k|²/(2√d), (B, H, N, 1)."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, key, value, projection = (tensor.to(dtype) for tensor in (query, key, value, projection))
    head_size = query.shape[-1]
    if mask is not None:
        # Zeros stop NaN in pads from reaching real tokens; what excludes the pads is the bias below.
        pad = ~mask[:, None, :, None]
        key, value = key.masked_fill(pad, 0), value.masked_fill(pad, 0)
    key_bias = key.square().sum(-1, keepdim=True) * (-0.5 * head_size**-0.5)
    if mask is not None:
        # Finite, not -inf: an example without real tokens then averages zeros instead of computing inf - inf.
        key_bias = key_bias.masked_fill(pad, torch.finfo(dtype).min)
    return query, key, value, key_bias, projection * head_size**-0.25


def _features(query: Tensor, key: Tensor, key_bias: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Return query and key features (B, H, N, m), both in [0, 1]; the maxima cancel and get no gradient."""
    key_logits = key @ projection.mT + key_bias
    key_maximum = key_logits.detach().amax(-2, keepdim=True)
    query_logits = query @ projection.mT + key_maximum
    query_maximum = query_logits.detach().amax(-1, keepdim=True)
    return (query_logits - query_maximum).exp(), (key_logits - key_maximum).exp()


def _attend(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, projection: Tensor, form: str) -> Tensor:
    if form == "two_attention":
        pool_logits = (key @ projection.mT + key_bias).mT
        pooled = pool_logits.softmax(-1) @ value
        return (query @ projection.mT + pool_logits.logsumexp(-1).unsqueeze(-2)).softmax(-1) @ pooled
    query_features, key_features = _features(query, key, key_bias, projection)
    if form == "quadratic" or (form == "auto" and query.shape[-2] < projection.shape[-2]):
        weights = query_features @ key_features.mT
        return (weights @ value) / weights.sum(-1, keepdim=True)
    numerator = query_features @ (key_features.mT @ value)
    return numerator / (query_features @ key_features.sum(-2).unsqueeze(-1))
