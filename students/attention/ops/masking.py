"""Small steps that many mechanisms share: pads excluded exactly, and attention by a feature map.

Shapes: B batch, N sequence length, H heads, d head size, r features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def makes_graph() -> bool:
    """Tell whether torch compiles, exports or traces: what is read of a tensor now would hold for all later inputs."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def blank_pads(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Set the pads of (B, H, N, d) or (B, N, D) to zero; multiplying would keep their NaN."""
    if mask is None:
        return tensor
    pad = ~mask.unsqueeze(-1)
    return tensor.masked_fill(pad.unsqueeze(1) if tensor.dim() == 4 else pad, 0)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context without autocast on the tensor's device, for sums of features; see :func:`widen`."""
    return torch.autocast(tensor.device.type, enabled=False)


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert to fp32, or to fp64 where the first tensor is."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)


def masked_softmax(logits: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Softmax over ``dim`` where ``mask``, broadcastable to ``logits``, is True; exactly 0 elsewhere.

    Rows without any True yield zeros, and no gradient is NaN.
    """
    if mask is None:
        return logits.softmax(dim)
    weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(dim)
    return weights.masked_fill(~mask, 0)


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False
) -> Tensor:
    """Softmax attention of (B, H, M, d) queries to (B, H, N, d) keys by PyTorch's kernel; the mask is SDPA's.

    ``causal``: as many queries as keys, each of which sees those up to its own; the kernel leaves the others out.

    PyTorch's kernel for a CPU takes two to ten times as long for a gradient in bf16 as in fp32, which training on bf16
    gets therefore.
    """
    if query.device.type == "cpu" and value.dtype == torch.bfloat16 and torch.is_grad_enabled():
        with full_precision(query):
            mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
            heads = query.float(), key.float(), value.float()
            wide = F.scaled_dot_product_attention(*heads, mask, dropout_p=dropout, is_causal=causal)
            return wide.to(value.dtype)
    if torch.compiler.is_exporting():
        return _written_out(query, key, value, mask)
    return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, is_causal=causal)


def _written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend in four operations; exported, SDPA is a dozen, of which its guard against NaN alone takes a tenth."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # .mT would leave a condition's branch
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    return (logits if mask is None else logits + mask).softmax(-1) @ value


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Attend to the real ones among keys and values (B, H, N, d) from any number of queries (B, H, M, d)."""
    if mask is None:
        return fused_attention(query, key, value, dropout=dropout)
    # A pad's weight is 0, but 0 · NaN is NaN.
    value = value.masked_fill(~mask[:, None, :, None], 0)
    # An example without real tokens attends to its zeroed values: a row of -inf alone is NaN in some kernels.
    mask = mask | ~mask.any(-1, keepdim=True)
    return fused_attention(query, key, value, mask[:, None, None, :], dropout)


def softmax_map(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Return the (B, H, M, N) weights that :func:`softmax_attention` gives to the values."""
    logits = query @ key.mT * query.shape[-1] ** -0.5
    return masked_softmax(logits, None if mask is None else mask[:, None, None, :])


def feature_attention(
    query_features: Tensor, key_features: Tensor, value: Tensor, mask: Tensor | None, floor: float = 1e-6
) -> Tensor:
    """Attention with weights φ(q)·φ(k) ≥ 0, normalised per row, in O(N r d): φ(Q)(φ(K)ᵀV) / φ(Q)(φ(K)ᵀ1).

    Features are (B, H, N, r), the value (B, H, N, d), the mask (B, N) bool. Computes in fp32 at least, under autocast
    too, and returns ``value``'s dtype. ``floor`` keeps rows of zero features finite.
    """
    dtype = value.dtype
    with full_precision(value):
        query_features, key_features, value = widen(query_features, key_features, value)
        key_features, value = blank_pads(key_features, mask), blank_pads(value, mask)
        pooled = key_features.mT @ value
        total = query_features @ key_features.sum(-2).unsqueeze(-1)
        context = (query_features @ pooled) / total.clamp(min=floor)
    return context.to(dtype)


def feature_attention_map(
    query_features: Tensor, key_features: Tensor, mask: Tensor | None, floor: float = 1e-6
) -> Tensor:
    """Return the (B, H, N, N) weights that :func:`feature_attention` gives to the values; O(N² r)."""
    with full_precision(query_features):
        query_features, key_features = widen(query_features, key_features)
        weights = query_features @ blank_pads(key_features, mask).mT
        return weights / weights.sum(-1, keepdim=True).clamp(min=floor)


def stabilise_features(query_logits: Tensor, key_logits: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return features φ(q), φ(k) ≤ 1 and a scale (B, H, N, 1) with φ(q)·φ(k) e^scale = Σ_j exp(a_j + b_j).

    The logits a of queries and b of keys are (B, H, N, r), wide. One maximum per feature over the real keys is given
    back to the queries, so that Σ φ(q)·φ(k) ≥ 1 over the keys of any norm; the scale is the same for all keys of a
    query and cancels in :func:`feature_attention`. Key features are 0 at pads.
    """
    if mask is not None:
        # Finite, so that an example without real tokens does not compute inf - inf.
        key_logits = key_logits.masked_fill(~mask[:, None, :, None], torch.finfo(key_logits.dtype).min / 2)
    key_maximum = key_logits.detach().amax(-2, keepdim=True)
    query_logits = query_logits + key_maximum
    scale = query_logits.detach().amax(-1, keepdim=True)
    return (query_logits - scale).exp(), blank_pads((key_logits - key_maximum).exp(), mask), scale
