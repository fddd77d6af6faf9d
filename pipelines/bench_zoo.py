"""Time and weigh the core of every attention mechanism against SDPA, and fit how both grow with the length.

    python pipelines/bench_zoo.py
    python pipelines/bench_zoo.py --attentions performer longformer --lengths 512 2048 8192 --seconds 10

One example, 12 heads of 64 as in BERT-base, fp32, every mechanism with its default options; projections are left out
where the mechanism has the usual ones. All mechanisms of a length are timed in the same interleaved rounds. Memory is
the rise of the process's peak during a forward pass, each point in a fresh process. Exponents are fitted over 512
tokens and more.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.console import Parser, positive, run
from distill.errors import UserError, choices_hint

NUM_HEADS, HEAD_SIZE = 12, 64
FIT_FROM = 512  # below, fixed costs hide the growth
RIVAL = "softmax"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--attentions", nargs="+", metavar="NAME", help="default: all")
    add("--lengths", type=positive, nargs="+", default=[128, 512, 1024, 2048, 4096, 8192], metavar="TOKENS")
    add("--seconds", type=float, default=20.0, help="per length, overrun to reach 6 rounds (default 20)")
    add("--output", type=Path, default=Path("runs/bench/bench_zoo.json"), help="default runs/bench/bench_zoo.json")
    return parser.parse_args(arguments)


def build(name: str, length: int) -> tuple[Any, list[Any]]:
    """Return one mechanism in evaluation mode and the random tensors it mixes."""
    import torch

    from students import ATTENTIONS, StudentConfig

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "num_attention_heads": NUM_HEADS,
        "hidden_size": NUM_HEADS * HEAD_SIZE,
        "max_position_embeddings": length,
    }
    module = ATTENTIONS[name](StudentConfig(attention=name, **sizes), layer=0).eval()
    module.initialize_features()
    on_heads = module.works_on_heads()
    shape = (1, NUM_HEADS, length, HEAD_SIZE) if on_heads else (1, length, NUM_HEADS * HEAD_SIZE)
    tensors = [torch.randn(shape) for _ in range(3 if on_heads else 1)]
    return partial(module.attend if on_heads else module.mix, mask=None), tensors


def forward(call: Any, tensors: list[Any]) -> None:
    """Run the mechanism once, without gradients."""
    import torch

    with torch.inference_mode():
        call(*tensors)


def peak_megabytes(name: str, length: int) -> float:
    """Return by how much one forward pass raises the peak of this process, which has run nothing else."""
    from distill.memory import start_resident_peak

    call, tensors = build(name, length)
    forward(call, tensors)
    peak = start_resident_peak()
    forward(call, tensors)
    return peak() / 1e6


def weigh(names: list[str], lengths: list[int]) -> dict[tuple[str, int], float]:
    """Return the peak memory of every point in MB, each from a process forked off one that only imported."""
    from tqdm import tqdm

    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # freed tensors go back at once, or the next run takes them unseen
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "students", "distill.memory"])
    points = [(name, length) for name in names for length in lengths]
    with context.Pool(1, maxtasksperchild=1) as pool:
        return {point: pool.apply(peak_megabytes, point) for point in tqdm(points, desc="memory")}


def exponent(values: dict[int, float]) -> float | None:
    """Return the slope of log(value) over log(length) by least squares, over lengths of 512 and more."""
    import numpy as np

    points = [(length, value) for length, value in values.items() if length >= FIT_FROM and value > 0]
    if len(points) < 2:
        return None
    logs = np.log(np.array(points))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def main() -> None:
    """Weigh, time, fit, print and write."""
    options = parse()
    import numpy as np
    from tqdm import tqdm

    from distill.environment import describe_environment
    from distill.files import write_atomically
    from distill.timing import PointError, ratio_of_medians, time_interleaved
    from students import ATTENTIONS

    for name in options.attentions or []:
        if name not in ATTENTIONS:
            raise UserError(f"--attentions {name}: {choices_hint(name, ATTENTIONS)}")
    names = list(dict.fromkeys([RIVAL, *(options.attentions or ATTENTIONS)]))
    memory = weigh(names, options.lengths)
    rows: dict[str, dict[str, Any]] = {
        name: {"attention": name, "claims": ATTENTIONS[name].complexity, "points": []} for name in names
    }
    for length in tqdm(options.lengths, desc="time"):
        calls = {name: partial(forward, *build(name, length)) for name in names}
        try:
            times = time_interleaved(calls, seconds=options.seconds)
        except PointError as error:
            raise UserError(f"{length} tokens: {error}; give more --seconds or fewer --attentions") from error
        for name in names:
            speedup, low, high = ratio_of_medians(times[RIVAL], times[name])
            point = {"length": length, "milliseconds": 1000 * float(np.median(times[name]))}
            point |= {"speedup": speedup, "low": low, "high": high, "megabytes": memory[name, length]}
            rows[name]["points"].append(point)
    for row in rows.values():
        for key, unit in (("time_exponent", "milliseconds"), ("memory_exponent", "megabytes")):
            row[key] = exponent({point["length"]: point[unit] for point in row["points"]})
    record = {"num_heads": NUM_HEADS, "head_size": HEAD_SIZE, "environment": describe_environment("cpu")}
    write_atomically(options.output, json.dumps(record | {"rows": list(rows.values())}, indent=1) + "\n")
    print(table(list(rows.values()), options.lengths) + f"\nwritten to {options.output}")


def table(rows: list[dict[str, Any]], lengths: list[int]) -> str:
    """Return speedups over SDPA by length, and the fitted exponents, as text."""
    lines = [
        f"{'':18}" + "".join(f"{length:>8}" for length in lengths) + f"{'time ~N^':>10}{'memory ~N^':>12}  claims"
    ]
    for row in rows:
        speedups = "".join(f"{point['speedup']:>7.2f}x" for point in row["points"])
        exponents = [math.nan if row[key] is None else row[key] for key in ("time_exponent", "memory_exponent")]
        lines.append(f"{row['attention']:18}{speedups}{exponents[0]:>10.2f}{exponents[1]:>12.2f}  {row['claims']}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
