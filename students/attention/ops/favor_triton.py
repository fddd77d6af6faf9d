"""FAVOR+ on a GPU by one Triton kernel, which never writes the features to memory.

The estimate is two softmax attentions (`favor`): the rows of the projection attend to the keys, with -|k|²/(2√d) added
to the logits of a key; then the queries attend to the rows, with the rows' logsumexp added. Both are the loop of
FlashAttention (https://arxiv.org/abs/2205.14135) with one number added per key.

It agrees with `favor` in Triton's interpreter and waits for a GPU: students use it once `pipelines/bench_gpu.py` has
shown there that it is right and faster. Triton comes with PyTorch for CUDA; nothing else here needs it.

Shapes: B batch, N sequence length, H heads, d head size, m features.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_ROWS = 64
BLOCK_KEYS = 64
FILL = 256
"""So many programs keep a large GPU busy; fewer features than that share their keys out among several programs."""
LEAST_KEYS = 512
"""Of one such share."""
EXCLUDED = tl.constexpr(-1e30)
"""Logit of a pad: finite, so that a text without real tokens averages zeros instead of computing inf - inf."""


def favor_in_triton(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor) -> Tensor:
    """Return what :func:`favor.favor_attention` returns, (B, H, N, d) in ``value``'s dtype, without a gradient.

    Inputs are fp32, bf16 or fp16, the projection (m, d) or (H, m, d) in fp32. Sums are in fp32, and so are products of
    fp32 inputs; those of half precision are in TF32, which holds the inputs exactly and rounds the projection.
    """
    batch, heads, _, head_size = query.shape
    rows = projection.float() * head_size**-0.25
    features = rows.expand(batch, heads, *rows.shape[-2:])
    precision = "ieee" if torch.float32 in (query.dtype, key.dtype, value.dtype) else "tf32"
    with torch.cuda.device_of(query):
        pooled, logsumexp = _attend(features, key, value, mask, None, precision, torch.float32)
        return _attend(query, features, pooled, None, logsumexp, precision, value.dtype)[0]


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    precision: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return softmax(q·k + bias) v, (B, H, n, d), and the logsumexp of its logits, (B, H, n) in fp32.

    Args:
        query, key, value: (B, H, n, d), (B, H, N, d), (B, H, N, d), in any layout.
        mask: (B, N) bool, True at real tokens, or None.
        bias: (B, H, N) in fp32, or None for -|k|²/(2√d).
        precision: of the products, as ``tl.dot`` calls it.
        dtype: of the output.
    """
    batch, heads, num_rows, head_size = query.shape
    length = key.shape[2]
    mask = None if mask is None else mask.contiguous()
    programs = batch * heads * triton.cdiv(num_rows, BLOCK_ROWS)
    shares = max(1, min(FILL // programs, length // LEAST_KEYS))
    share = triton.cdiv(triton.cdiv(length, shares), BLOCK_KEYS) * BLOCK_KEYS
    shares = triton.cdiv(length, share)
    # (B, n, H, d) in memory where nothing is left to add up: heads merge later without a copy.
    output = query.new_empty(shares, batch, num_rows, heads, head_size, dtype=dtype if shares == 1 else torch.float32)
    output = output.transpose(2, 3)
    logsumexp = query.new_empty(shares, batch, heads, num_rows, dtype=torch.float32)
    # The heads first: of a grid's second and third dimension CUDA takes 65,535 at most.
    _attention_kernel[(batch * heads, triton.cdiv(num_rows, BLOCK_ROWS), shares)](
        *(query, key, value, query if mask is None else mask, query if bias is None else bias, output, logsumexp),
        *(*query.stride(), *key.stride(), *value.stride(), *output.stride()),
        *(heads, num_rows, length, share, -0.5 * head_size**-0.5),
        head_size=head_size,
        width=max(16, triton.next_power_of_2(head_size)),
        block_rows=BLOCK_ROWS,
        block_keys=BLOCK_KEYS,
        has_mask=mask is not None,
        has_bias=bias is not None,
        precision=precision,
    )
    if shares == 1:
        return output[0], logsumexp[0]
    total = logsumexp.logsumexp(0)
    weights = (logsumexp - total).exp().unsqueeze(-1)
    return (output * weights).sum(0).to(dtype), total


@triton.jit
def _attention_kernel(  # type: ignore[no-untyped-def]  # Triton gives the arguments types of its own
    query,
    key,
    value,
    mask,
    bias,
    output,
    logsumexp,
    query_batch,
    query_head,
    query_row,
    query_column,
    key_batch,
    key_head,
    key_row,
    key_column,
    value_batch,
    value_head,
    value_row,
    value_column,
    output_share,
    output_batch,
    output_head,
    output_row,
    output_column,
    num_heads,
    num_rows,
    length,
    share,
    norm_factor,
    head_size: tl.constexpr,
    width: tl.constexpr,
    block_rows: tl.constexpr,
    block_keys: tl.constexpr,
    has_mask: tl.constexpr,
    has_bias: tl.constexpr,
    precision: tl.constexpr,
):
    """Attend for ``block_rows`` queries of one head to one share of its keys."""
    example_and_head = tl.program_id(0)
    example = (example_and_head // num_heads).to(tl.int64)
    head = (example_and_head % num_heads).to(tl.int64)
    rows = tl.program_id(1) * block_rows + tl.arange(0, block_rows)
    columns = tl.arange(0, width)
    in_head = columns[None, :] < head_size
    is_row = rows[:, None] < num_rows
    query += example * query_batch + head * query_head
    key += example * key_batch + head * key_head
    value += example * value_batch + head * value_head
    queries = tl.load(
        query + rows[:, None] * query_row + columns[None, :] * query_column, mask=is_row & in_head, other=0.0
    ).to(tl.float32)

    maximum = tl.full((block_rows,), EXCLUDED, tl.float32)
    total = tl.zeros((block_rows,), tl.float32)
    context = tl.zeros((block_rows, width), tl.float32)
    first = tl.program_id(2) * share
    for start in range(first, tl.minimum(first + share, length), block_keys):
        tokens = start + tl.arange(0, block_keys)
        exists = tokens < length
        is_real = exists
        if has_mask:
            is_real = exists & (tl.load(mask + example * length + tokens, mask=exists, other=0) != 0)
        here = is_real[:, None] & in_head  # a pad is never read: it may hold NaN
        keys = tl.load(key + tokens[:, None] * key_row + columns[None, :] * key_column, mask=here, other=0.0)
        values = tl.load(value + tokens[:, None] * value_row + columns[None, :] * value_column, mask=here, other=0.0)
        keys = keys.to(tl.float32)
        if has_bias:
            added = tl.load(bias + example_and_head * length + tokens, mask=exists, other=0.0)
        else:
            added = tl.sum(keys * keys, 1) * norm_factor
        logits = tl.dot(queries, tl.trans(keys), input_precision=precision) + added[None, :]
        logits = tl.where(is_real[None, :], logits, EXCLUDED)
        new_maximum = tl.maximum(maximum, tl.max(logits, 1))
        weights = tl.where(exists[None, :], tl.exp(logits - new_maximum[:, None]), 0.0)
        decay = tl.exp(maximum - new_maximum)
        total = total * decay + tl.sum(weights, 1)
        context = context * decay[:, None] + tl.dot(weights, values.to(tl.float32), input_precision=precision)
        maximum = new_maximum

    output += tl.program_id(2) * output_share + example * output_batch + head * output_head
    tl.store(
        output + rows[:, None] * output_row + columns[None, :] * output_column,
        context / total[:, None],
        mask=is_row & in_head,
    )
    per_share = tl.num_programs(0).to(tl.int64) * num_rows
    tl.store(
        logsumexp + tl.program_id(2) * per_share + example_and_head * num_rows + rows,
        maximum + tl.log(total),
        mask=rows < num_rows,
    )
