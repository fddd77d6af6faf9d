"""What pipelines/bench_mechanisms.py measured of attention mechanisms, as a part of a leaderboard."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from distill.evaluation.record_parts import Interval
from distill.reporting.formatting import MISSING, megabytes, milliseconds, quantity, speedup_interval
from distill.reporting.tables import Table
from distill.utils.errors import UserError
from distill.utils.files import read_json

Bench = Mapping[str, Any]
FRONT_LENGTH = 2048
"""Tokens at which students are drawn against each other: here attention is more of the work than all the rest."""


def read_bench(path: Path | str) -> Bench:
    """Read a record of pipelines/bench_mechanisms.py.

    Raises:
        UserError: it is not there or not whole.
    """
    try:
        bench = read_json(Path(path))
        rows = {row["attention"]: row for row in bench["rows"]}
        return {**bench, "rows": rows, "name": Path(path).name}
    except OSError as error:
        raise UserError(f"bench: {path} cannot be read; pipelines/bench_mechanisms.py writes it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"bench: {path} is not a record of pipelines/bench_mechanisms.py; write it again") from error


def with_speed(summary: Mapping[str, Any], bench: Bench) -> dict[str, Any]:
    """Return a summary whose runs were not timed with the speedup of its attention over softmax attention.

    The point is that of a whole student of the benchmark's shape at `FRONT_LENGTH` tokens; a summary with a speed of
    its own, or of an attention that was not measured, stays as it is.
    """
    points = bench["rows"].get(summary["attention"], {}).get("student", [])
    if summary["speed"] or not points:
        return dict(summary)
    point = min(points, key=lambda point: abs(point["length"] - FRONT_LENGTH))
    conditions = {"device": "cpu", "dtype": "float32", "over_softmax": True}
    conditions["batch_size"] = bench.get("batch_size", 1)
    return {**summary, "speed": [conditions | point]}


def mechanism_cells(bench: Bench, attentions: Collection[str]) -> Table:
    """One row per mechanism: growth, FLOPs, and at every length latency, speedup over softmax attention and memory."""
    rows = [row for name, row in bench["rows"].items() if name in attentions]
    lengths = sorted({point["length"] for row in rows for point in row["student"]})
    shape, batch_size = bench["student_shape"], bench.get("batch_size", 1)
    title = "Speed and memory of a student of {} layers, hidden size {}, {} heads".format(
        *(shape[key] for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    )
    notes = (
        "at every length: latency of the whole student, its speedup over the one with softmax attention (SDPA) "
        f"[95 %], peak memory of its forward pass beside the weights; batch {batch_size}, cpu, float32",
        "~N^: exponents fitted to the mechanism alone (12 heads of 64) over 512 tokens and more",
        f"measured by pipelines/bench_mechanisms.py: {bench['name']}",
    )
    headers = ("attention", "claims", "time ~N^", "memory ~N^", *(f"{length:,} tokens" for length in lengths))
    return Table(title, (*headers, "compute / longest"), tuple(_row(row, lengths) for row in rows), notes)


def _speedup(point: Mapping[str, Any]) -> str:
    return speedup_interval(Interval(point["speedup"], point["low"], point["high"]))


def _row(row: Mapping[str, Any], lengths: list[int]) -> tuple[str, ...]:
    points = {point["length"]: point for point in row["student"]}
    exponents = (row[key] for key in ("time_exponent", "memory_exponent"))
    cells = [
        f"{milliseconds(point['milliseconds'])} · {_speedup(point)} · {megabytes(point['megabytes'])}"
        if (point := points.get(length))
        else MISSING
        for length in lengths
    ]
    longest = points.get(lengths[-1]) if lengths else None
    return (
        row["attention"],
        row["claims"],
        *(MISSING if value is None else f"{value:.2f}" for value in exponents),
        *cells,
        quantity(longest["flops"], "FLOP") if longest else MISSING,
    )
