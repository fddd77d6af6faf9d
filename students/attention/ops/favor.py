"""FAVOR+, the positive random-feature estimate of softmax attention, linear in the sequence length.

Choromanski et al., "Rethinking Attention with Performers", https://arxiv.org/abs/2009.14794: for rows w of an
orthogonal Gaussian projection, exp(x·y) = E[exp(w·x - |x|²/2) exp(w·y - |y|²/2)] with x = q / d^¼ and y = k / d^¼, so
that the features of the keys can be summed before a query is looked at.

Two things differ from the published code, which is biased and turns into mean pooling for BERT-sized queries and keys:
the QR sign is fixed (`orthogonal_projection`), and the stabiliser is one maximum per FEATURE over the real keys, given
back to the queries. It cancels exactly and keeps the denominator at 1 or above, so that no epsilon is needed.

Shapes: B batch, N sequence length, H heads, d head size, m features.
"""

import difflib
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .chunks import chunk_projection, cut_chunks, flat, like, store

FORMS = ("auto", "linear", "two_attention", "quadratic")


def favor_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor, form: str = "auto"
) -> Tensor:
    """Attend by random features and return (B, H, N, d) in ``value``'s dtype.

    Key and value are (B, H, N, d), the query too or with fewer tokens, the projection is (m, d) or, one per head,
    (H, m, d), and the mask is (B, N) bool, True at real tokens. All forms give the same numbers: ``linear`` O(Nmd);
    ``two_attention`` reads it as the projection attending to the keys and the queries to the projection (the form for
    fewer queries than keys in training); ``quadratic`` O(Nmd + N²(m + d)), faster in
    training on the shortest sequences; ``auto`` is linear but there. Computes in fp32 (fp64 for fp64 inputs), under
    autocast too. An example without real tokens gives zeros.
    """
    if form not in FORMS:
        nearest = difflib.get_close_matches(form, FORMS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"FAVOR+ form {form!r} is unknown; choose one of {', '.join(FORMS)}{hint}")
    dtype = value.dtype
    with torch.autocast(query.device.type, enabled=False):
        query, key, value, projection = _prepare(query, key, value, mask, projection)
        if form == "two_attention":
            context = _two_attention(query, key, value, mask, projection)
        elif form == "quadratic" or (form == "auto" and _prefers_quadratic(query, key, value, projection)):
            weights = _unnormalised_map(query, key, mask, projection)
            context = (weights @ value) / weights.sum(-1, keepdim=True)
        else:
            context = _linear(query, key, value, mask, projection)
    return context.to(dtype)


def favor_attention_map(query: Tensor, key: Tensor, mask: Tensor | None, projection: Tensor) -> Tensor:
    """Return the (B, H, N, N) row-stochastic map that ``favor_attention`` applies to the values; O(N²m)."""
    with torch.autocast(query.device.type, enabled=False):
        query, key, _, projection = _prepare(query, key, key, mask, projection)
        weights = _unnormalised_map(query, key, mask, projection)
        weights = weights / weights.sum(-1, keepdim=True)
        return weights if mask is None else weights.masked_fill(~mask[:, None, None, :], 0)


def _prepare(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cast, blank the pads and fold d^-¼ into the projection."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, key, value, projection = (tensor.to(dtype) for tensor in (query, key, value, projection))
    if mask is not None:
        # Zeros keep NaN in pads from reaching real tokens; what excludes the pads is the bias of the keys.
        pad = ~mask[:, None, :, None]
        key, value = key.masked_fill(pad, 0), value.masked_fill(pad, 0)
    return query, key, value, projection * query.shape[-1] ** -0.25


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _prefers_quadratic(query: Tensor, key: Tensor, value: Tensor, projection: Tensor) -> bool:
    """Whether N² work is the faster: in training, at half the length where operation counts meet, 2md / (m + d)."""
    if torch.compiler.is_compiling() or not _needs_gradient(query, key, value, projection):
        return False
    (length, head_size), num_features = query.shape[-2:], projection.shape[-2]
    return length * (num_features + head_size) < num_features * head_size


def _key_bias(key: Tensor, mask: Tensor | None) -> Tensor:
    """Return what is added to the logits of a key, -|k|²/(2√d), and almost -infinity at pads; (B, H, N, 1)."""
    norm = torch.linalg.vector_norm(key, dim=-1, keepdim=True)  # one pass over the keys; squares and sum are two
    bias = norm.square() * (-0.5 * key.shape[-1] ** -0.5)
    # Finite, so that an example without real tokens averages zeros instead of computing inf - inf.
    return bias if mask is None else bias.masked_fill(~mask[:, None, :, None], torch.finfo(key.dtype).min / 2)


def _unnormalised_map(query: Tensor, key: Tensor, mask: Tensor | None, projection: Tensor) -> Tensor:
    """Return query features times key features, (B, H, N, N), each row up to a factor."""
    key_logits = key @ projection.mT + _key_bias(key, mask)
    key_maximum = key_logits.detach().amax(-2, keepdim=True)
    query_features = (query @ projection.mT + key_maximum).softmax(-1)  # any factor per query cancels
    return query_features @ (key_logits - key_maximum).exp().mT


def _two_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor) -> Tensor:
    pool_logits = (key @ projection.mT + _key_bias(key, mask)).mT
    pool_weights = pool_logits.softmax(-1)
    # The largest weight is exp(maximum - logsumexp). ONNX Runtime takes a sixth of a student's time for a logsumexp.
    logsumexp = pool_logits.amax(-1) - pool_weights.amax(-1).log()
    read_logits = query @ projection.mT + logsumexp.unsqueeze(-2)
    return read_logits.softmax(-1) @ (pool_weights @ value)


def _linear(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor) -> Tensor:
    inputs = (query, key, value, mask, projection)
    if torch.compiler.is_compiling():  # it fuses plain operations itself; the loop over chunks fixes the shapes
        return _two_attention(*inputs)
    needs_gradient = _needs_gradient(query, key, value, projection)
    if query.device.type == "cpu" and not needs_gradient:
        return _fused_two_attention(*inputs)
    if query.shape[-2] != key.shape[-2]:
        return _two_attention(*inputs)
    if needs_gradient:
        return _LinearAttention.apply(*inputs)
    return _linear_forward(*inputs, saved=None, keep_features=False)


def _fused_two_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor) -> Tensor:
    """Compute :func:`_two_attention` by the kernel behind SDPA on a CPU, which also returns the logsumexp.

    A tenth to a half faster than the linear form, which has what a gradient needs.
    """
    features = projection.expand(*query.shape[:2], *projection.shape[-2:])
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # SDPA keeps the logsumexp to itself
    pooled, logsumexp = attention(features, key, value, attn_mask=_key_bias(key, mask).mT, scale=1.0)
    # The kernel would copy a mask that is not contiguous in the keys for every query.
    context, _ = attention(query, features, pooled, attn_mask=logsumexp.contiguous().unsqueeze(-2), scale=1.0)
    return context


LOG2_E = math.log2(math.e)
KEPT_ELEMENTS = 2**24  # up to 2 x 64 MiB of features are kept for backward, more are computed again


def _linear_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    projection: Tensor,
    saved: list[Tensor] | None,
    keep_features: bool,
) -> Tensor:
    """Compute the linear form chunk by chunk, in place, in powers of two (exp2 is 3x faster than exp on a CPU).

    Per chunk ``saved`` receives the pooled values and, for backward, either both normalised features or the two
    logsumexps from which they are computed again.
    """
    batch, heads, length, head_size = query.shape
    context = query.new_empty(batch, length, heads, head_size).transpose(1, 2)  # heads merge later without a copy
    for chunk in cut_chunks(query, projection):
        to_features = chunk_projection(projection * LOG2_E, query, chunk).mT
        features = torch.baddbmm(_chunk_bias(key, mask, chunk), flat(key, chunk), to_features)
        maximum = features.amax(-2, keepdim=True)
        features.sub_(maximum).exp2_()
        total = features.sum(-2, keepdim=True)
        pooled = torch.bmm(features.mT, flat(value, chunk)).div_(total.mT)
        key_features = features
        if keep_features:
            key_features.div_(total)
            features = torch.empty_like(key_features)
        key_logsumexp = maximum.add_(total.log2_())

        torch.baddbmm(key_logsumexp, flat(query, chunk), to_features, out=features)
        maximum = features.amax(-1, keepdim=True)
        features.sub_(maximum).exp2_()
        total = features.sum(-1, keepdim=True)
        store(context, chunk, features.div_(total), pooled)
        if saved is not None:
            query_logsumexp = maximum.add_(total.log2_())
            saved += [pooled, features, key_features] if keep_features else [pooled, query_logsumexp, key_logsumexp]
    return context


class _LinearAttention(torch.autograd.Function):
    """The linear form with its gradient: two softmax backward passes; the keys' logsumexp is an output too."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor
    ) -> Tensor:
        saved: list[Tensor] = []
        ctx.kept = query.shape[:-1].numel() * projection.shape[-2] <= KEPT_ELEMENTS
        context = _linear_forward(query, key, value, mask, projection, saved, ctx.kept)
        ctx.save_for_backward(query, key, value, mask, projection, context, *saved)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            return _linear_backward(gradient, ctx.kept, ctx.needs_input_grad[4], *ctx.saved_tensors)


def _linear_backward(
    gradient: Tensor,
    kept: bool,
    projection_learns: bool,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    projection: Tensor,
    context: Tensor,
    *saved: Tensor,
) -> tuple[Tensor | None, ...]:
    query_gradient, key_gradient, value_gradient = (torch.empty_like(context) for _ in range(3))
    heads, head_size = query.shape[1], query.shape[-1]
    projection_gradient = projection.new_zeros(heads, *projection.shape[-2:]) if projection_learns else None
    for index, chunk in enumerate(cut_chunks(query, projection)):
        pooled, query_saved, key_saved = saved[3 * index : 3 * index + 3]
        rows = chunk_projection(projection, query, chunk)
        q, k, v, dout = (flat(tensor, chunk) for tensor in (query, key, value, gradient))
        if kept:
            query_weights, key_weights = query_saved, key_saved
        else:
            query_weights = torch.baddbmm(key_saved, q, rows.mT * LOG2_E).sub_(query_saved).exp2_()
            key_weights = torch.baddbmm(_chunk_bias(key, mask, chunk), k, rows.mT * LOG2_E).sub_(key_saved).exp2_()

        pooled_gradient = torch.bmm(query_weights.mT, dout)
        delta = torch.linalg.vecdot(dout, flat(context, chunk)).unsqueeze(-1)
        logits_gradient = torch.baddbmm(delta, dout, pooled.mT, beta=-1).mul_(query_weights)
        store(query_gradient, chunk, logits_gradient, rows)
        # Softmax backward subtracts <pooled, its gradient>; the key logsumexp, read by every query, adds its own.
        delta = torch.linalg.vecdot(pooled_gradient, pooled).unsqueeze(-2) - logits_gradient.sum(-2, keepdim=True)
        if projection_gradient is not None:
            projection_gradient[chunk[1]] += like(logits_gradient.mT @ q, query[chunk]).sum(0)

        store(value_gradient, chunk, key_weights, pooled_gradient)
        torch.baddbmm(delta, v, pooled_gradient.mT, beta=-1, out=logits_gradient).mul_(key_weights)
        bias_gradient = like(logits_gradient.sum(-1, keepdim=True), key[chunk])
        through_logits = like(logits_gradient @ rows, key[chunk])
        torch.addcmul(through_logits, key[chunk], bias_gradient, value=-(head_size**-0.5), out=key_gradient[chunk])
        if projection_gradient is not None:
            projection_gradient[chunk[1]] += like(logits_gradient.mT @ k, query[chunk]).sum(0)
    if projection_gradient is not None:
        projection_gradient = projection_gradient.sum_to_size(projection.shape)
    return query_gradient, key_gradient, value_gradient, None, projection_gradient


def _chunk_bias(key: Tensor, mask: Tensor | None, chunk: tuple[slice, slice]) -> Tensor:
    """Return the bias of the chunk's keys for logits to the base 2."""
    return (_key_bias(key[chunk], None if mask is None else mask[chunk[0]]) * LOG2_E).flatten(0, 1)
