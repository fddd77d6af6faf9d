"""Time implementations of core attention, the map from query, key and value to the context, against each other.

All implementations of a length are timed in the same interleaved rounds; a speedup is the ratio of two medians of
those rounds with a 95 % interval (`distill.benchmark.timing`). The inputs lie in memory as BERT leaves them, without
padding.

Shapes: B batch, N sequence length, H heads, d head size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.benchmark.timing import (
    Clock,
    PointError,
    memory_errors,
    ratio_of_medians,
    time_interleaved,
    typical_seconds,
)

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From query, key and value, (B, H, N, d) each, to the context, (B, H, N, d)."""

PASSES = ("forward", "forward+backward")
PARITY_LENGTH = 131  # odd, and beyond the lengths for which the Performer takes another form
PARITY_NORM = 0.25  # of queries and keys: published FAVOR+ is right for small norms only


class ParityError(Exception):
    """An implementation does not compute what it is timed for; the message names it."""


@dataclass(frozen=True)
class Contender:
    """One implementation, what it must equal, and where it cannot be run."""

    attention: Attention
    reference: Attention
    tolerance: float
    """Largest accepted error of the context and of each gradient, relative to the reference's norm."""
    score_bytes: int = 0
    """Bytes per query-key pair and head that it holds in memory: 4 for a materialised fp32 attention map."""


@dataclass(frozen=True)
class Setting:
    """What all implementations are timed on."""

    num_heads: int
    head_size: int
    batch_tokens: int
    """Batch size x length, at least one example."""
    seconds: float
    """Of the rounds of one length; overrun to reach 6 of them."""
    device: str = "cpu"
    max_score_bytes: int = 2**31
    """Of an attention map that an implementation holds in memory; one with a larger one is left out."""


def make_inputs(
    batch_size: int, num_heads: int, length: int, head_size: int, *, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw query, key, value and the upstream gradient: (B, N, H, d) in memory, seen as (B, H, N, d)."""
    generator = torch.Generator().manual_seed(0)
    shape = (4, batch_size, length, num_heads, head_size)
    drawn = torch.randn(shape, generator=generator).to(device)
    query, key, value, upstream = (tensor.transpose(1, 2) for tensor in drawn)
    return query, key, value, upstream


def run_attention(attention: Attention, inputs: tuple[Tensor, ...], *, backward: bool) -> tuple[Tensor, ...]:
    """Return the context and, with ``backward``, the gradients of query, key and value."""
    *operands, upstream = inputs
    if not backward:
        with torch.inference_mode():
            return (attention(*operands),)
    leaves = [tensor.detach().requires_grad_() for tensor in operands]
    context = attention(*leaves)
    return (context.detach(), *torch.autograd.grad(context, leaves, upstream))


def check_parity(contenders: Mapping[str, Contender], *, num_heads: int, head_size: int, device: str = "cpu") -> None:
    """Raise ParityError unless every context and gradient equals its reference on a small input."""
    query, key, value, upstream = make_inputs(2, num_heads, PARITY_LENGTH, head_size, device=device)
    inputs = (query * PARITY_NORM, key * PARITY_NORM, value, upstream)
    for name, contender in contenders.items():
        results = run_attention(contender.attention, inputs, backward=True)
        references = run_attention(contender.reference, inputs, backward=True)
        for what, result, reference in zip(("context", "dquery", "dkey", "dvalue"), results, references, strict=True):
            error = float((result - reference).norm() / reference.norm())
            if not error <= contender.tolerance:
                raise ParityError(f"{name}: {what} is off by {error:.1e}, more than {contender.tolerance:.0e}")


def time_length(
    contenders: Mapping[str, Contender],
    length: int,
    setting: Setting,
    *,
    backward: bool,
    clock: Clock = perf_counter,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Time every contender at one length.

    Returns:
        Seconds per call, (blocks, rounds) by name, entry by entry from the same round, and why others were left out.
    """
    batch_size = max(1, setting.batch_tokens // length)
    fitting: dict[str, Attention] = {}
    reasons: dict[str, str] = {}
    for name, contender in contenders.items():
        needed = contender.score_bytes * batch_size * setting.num_heads * length**2
        if needed > setting.max_score_bytes:
            reasons[name] = f"its attention map takes {needed / 2**30:.1f} GiB"
        else:
            fitting[name] = contender.attention

    def prepare() -> dict[str, Callable[[], Any]]:
        inputs = make_inputs(batch_size, setting.num_heads, length, setting.head_size, device=setting.device)
        return {
            name: partial(run_attention, attention, inputs, backward=backward) for name, attention in fitting.items()
        }

    synchronize = torch.cuda.synchronize if setting.device.startswith("cuda") else lambda: None
    try:
        with memory_errors():
            return time_interleaved(prepare, seconds=setting.seconds, clock=clock, synchronize=synchronize), reasons
    except PointError as error:
        return {}, {name: str(error) for name in contenders}


def compare_times(
    times: Mapping[str, np.ndarray], reasons: Mapping[str, str], subject: str, rivals: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return one row per rival, {label: name in ``times``}: the subject's speedup over it, or null with a reason."""
    rows = []
    for label, rival in rivals.items():
        row: dict[str, Any] = {"rival": label}
        missing = next((name for name in (subject, rival) if name not in times), None)
        if missing is None:
            speedup, low, high = ratio_of_medians(times[rival], times[subject])
            row |= {"speedup": speedup, "low": low, "high": high, "rounds": times[subject].size}
            row["performer_ms"], row["rival_ms"] = (1000 * typical_seconds(times[name]) for name in (subject, rival))
        else:
            row |= {"speedup": None, "reason": reasons.get(missing, "not installed")}
        rows.append(row)
    return rows


def ratio_table(rows: list[dict[str, Any]]) -> str:
    """Return a text table per pass: lengths and features down, rivals across, speedups with their 95 % intervals."""
    rivals = list(dict.fromkeys(row["rival"] for row in rows))
    lines: list[str] = []
    for name in dict.fromkeys(row["pass"] for row in rows):
        lines += ["", f"{name}: time of the rival / time of the Performer", ""]
        lines.append(f"{'length':>8}{'features':>10}" + "".join(f"{rival:>26}" for rival in rivals))
        cells: dict[tuple[int, int], dict[str, str]] = {}
        for row in rows:
            if row["pass"] == name:
                cells.setdefault((row["length"], row["num_features"]), {})[row["rival"]] = _cell(row)
        for (length, num_features), by_rival in cells.items():
            lines.append(f"{length:>8}{num_features:>10}" + "".join(f"{by_rival[rival]:>26}" for rival in rivals))
    reasons = {f"{row['rival']}: {row['reason']}" for row in rows if row["speedup"] is None}
    return "\n".join([*lines, "", *(f"- {reason}" for reason in sorted(reasons))]).strip("\n") + "\n"


def _cell(row: Mapping[str, Any]) -> str:
    return "-" if row["speedup"] is None else f"{row['speedup']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
