"""Time Performer core attention against SDPA, eager softmax and performer-pytorch, interleaved in one process.

    python pipelines/bench_kernels.py
    python pipelines/bench_kernels.py --lengths 512 4096 --num-features 128 --head-size 32 --threads 1
    pip install performer-pytorch==1.1.4   # adds its column; without it the column says why it is empty

Prints ratios with 95 % intervals and writes them as JSON. Exit code 0; 1 when an implementation differs from
its reference, and then no speedup is reported; 2 for a mistake in the command.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.utils.cli import Parser, positive, positive_seconds, run, writable_folder

if TYPE_CHECKING:
    from distill.benchmark.attention_kernels import Contender

NUM_HEADS = 12
PEER = "performer-pytorch"
TOLERANCE = 1e-4
PEER_TOLERANCE = 1e-2  # its + 1e-4 on every feature


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    lengths, features, output = [128, 256, 512, 1024, 2048, 4096, 8192], [64, 128, 256], Path("runs/bench/bench.json")
    default = "(default %(default)s)"
    add("--lengths", type=positive, nargs="+", default=lengths, metavar="TOKENS", help=f"lengths to time {default}")
    add("--num-features", type=positive, nargs="+", default=features, metavar="M", help=f"features per head {default}")
    add("--head-size", type=positive, default=64, metavar="SIZE", help=f"size of each of 12 heads {default}")
    add("--batch-tokens", type=positive, default=4096, metavar="TOKENS", help=f"batch size times length {default}")
    add("--threads", type=positive, metavar="N", help="threads of torch (default: as torch chooses)")
    seconds = "time per length and pass, exceeded to reach 6 rounds"
    add("--seconds", type=positive_seconds, default=5.0, metavar="SECONDS", help=f"{seconds} {default}")
    add("--device", choices=("cpu", "cuda"), default="cpu", help=f"device {default}")
    add("--output", type=Path, default=output, metavar="FILE", help=f"file to write {default}")
    return parser.parse_args(arguments)


def make_contenders(options: argparse.Namespace) -> tuple[dict[str, "Contender"], dict[str, str]]:
    """Return every implementation by name, and why the peer is missing where it is."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from distill.benchmark.attention_kernels import Contender
    from students.attention.ops.favor import favor_attention
    from students.attention.ops.orthogonal_projection import draw_projection
    from students.attention.ops.reference import naive_favor_attention, naive_softmax_attention

    softmax = partial(naive_softmax_attention, mask=None)
    contenders = {
        "sdpa": Contender(scaled_dot_product_attention, softmax, TOLERANCE),
        "eager softmax": Contender(softmax, softmax, TOLERANCE, score_bytes=4),
    }
    reasons = {}
    for num_features in options.num_features:
        projection = draw_projection(num_features, options.head_size, torch.Generator().manual_seed(0))
        with_projection: dict[str, Any] = {"mask": None, "projection": projection.to(options.device)}
        reference = partial(naive_favor_attention, **with_projection)
        contenders[f"performer {num_features}"] = Contender(
            partial(favor_attention, **with_projection), reference, TOLERANCE
        )
        try:
            from performer_pytorch import FastAttention
        except ImportError as error:
            reasons[f"{PEER} {num_features}"] = f"pip install performer-pytorch==1.1.4 ({error})"
            continue
        peer = FastAttention(options.head_size, nb_features=num_features, causal=False).to(options.device)
        peer.projection_matrix.copy_(projection)
        contenders[f"{PEER} {num_features}"] = Contender(peer, reference, PEER_TOLERANCE)
    return contenders, reasons


def main() -> int:
    """Check, time, print and write."""
    options = parse()
    writable_folder(str(options.output.parent))
    import torch
    from tqdm import tqdm

    from distill.benchmark.attention_kernels import (
        PASSES,
        ParityError,
        Setting,
        check_parity,
        compare_times,
        ratio_table,
        time_length,
    )
    from distill.utils.environment import describe_environment
    from distill.utils.files import write_atomically

    if options.threads:
        torch.set_num_threads(options.threads)
    contenders, absent = make_contenders(options)
    try:
        check_parity(contenders, num_heads=1, head_size=options.head_size, device=options.device)
    except ParityError as error:
        print(f"no speedup is reported: {error}", file=sys.stderr)
        return 1
    rows: list[dict[str, Any]] = []
    settings = {"num_heads": NUM_HEADS, "head_size": options.head_size}
    settings |= {"batch_tokens": options.batch_tokens, "seconds": options.seconds}
    setting = Setting(**settings, device=options.device)
    for length, name in tqdm([(length, name) for length in options.lengths for name in PASSES], desc="bench"):
        backward = name == "forward+backward"
        times, reasons = time_length(contenders, length, setting, backward=backward)
        for num_features in options.num_features:
            rivals = {"sdpa": "sdpa", "eager softmax": "eager softmax", PEER: f"{PEER} {num_features}"}
            point = {"pass": name, "length": length, "num_features": num_features}
            compared = compare_times(times, absent | reasons, f"performer {num_features}", rivals)
            rows += [point | row for row in compared]
    record = {"settings": settings, "environment": describe_environment(options.device), "rows": rows}
    write_atomically(options.output, json.dumps(record, indent=1) + "\n")
    print(ratio_table(rows) + f"\nwritten to {options.output}")
    return 0


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
