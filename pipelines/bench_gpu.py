"""Check every mechanism on a GPU, time attention there, and take a training step with DDP and with ZeRO-2.

    python pipelines/bench_gpu.py
    python pipelines/bench_gpu.py --parts attention --lengths 2048 16384 --batch_sizes 1

Takes about eight minutes. Four parts:
checks      a student of every mechanism, fp32 and bf16, against itself in fp64 on the CPU.
attention   SDPA on padded texts, FlashAttention on packed ones, and Performer in plain torch, compiled and by its
            kernel in Triton, interleaved: 12 heads of 64 in bf16, texts of half to the full length.
layers      those of a student (six of BERT's size), with the padding of such texts, compiled, and without it.
training    a small run under each of two launchers, on all GPUs.

Prints tables and writes JSON. Exit code 0; 1 if a check or a launcher failed; 2 for a mistake in the command.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.utils.cli import Parser, positive, positive_seconds, run, writable_folder
from distill.utils.errors import UserError

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("checks", "attention", "layers", "training")
NUM_HEADS, HEAD_SIZE, NUM_FEATURES = 12, 64, 256
SMALL: dict[str, Any] = {
    **{"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
    **{"vocab_size": 100, "max_position_embeddings": 64, "num_features": 16},
}
LARGE: dict[str, Any] = {
    **{"num_hidden_layers": 6, "hidden_size": NUM_HEADS * HEAD_SIZE, "num_attention_heads": NUM_HEADS},
    **{"intermediate_size": 4 * NUM_HEADS * HEAD_SIZE, "num_features": NUM_FEATURES},
}
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference of a logit from fp64, relative to the largest logit: 24 and 8 bits after two layers."""
LAUNCHERS = {"DDP": "multi_gpu.yaml", "ZeRO-2": "deepspeed_zero2.yaml"}
SHORT_RUN = (
    *("--data.max_train_examples", "64", "--teacher.epochs", "1", "--teacher.margin_over_majority", "-1"),
    *("--baseline.epochs", "0", "--comparison.lengths", "[]", "--comparison.memory", "false"),
)
"""Of the demo: one step of the teacher, one of every stage."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    lengths, batches, output = [128, 512, 2048, 8192, 16384], [1, 32, 256], Path("runs/bench/bench_gpu.json")
    default = "(default %(default)s)"
    add("--parts", choices=PARTS, nargs="+", default=PARTS, help=f"what to do {default}")
    add("--lengths", type=positive, nargs="+", default=lengths, metavar="TOKENS", help=f"lengths to time {default}")
    add("--batch_sizes", type=positive, nargs="+", default=batches, metavar="TEXTS", help=f"batches {default}")
    add("--seconds", type=positive_seconds, default=6.0, metavar="SECONDS", help=f"time per point {default}")
    add("--device", choices=("cpu", "cuda"), default="cuda", help=f"cpu tries this script itself {default}")
    add("--output", type=Path, default=output, metavar="FILE", help=f"file to write {default}")
    return parser.parse_args(arguments)


def check_mechanism(name: str, dtype: "torch.dtype", device: str) -> dict[str, Any]:
    """Compare the logits of a small student on ``device`` with those of its fp64 copy on the CPU, pads included."""
    import torch

    from students import ATTENTIONS, StudentConfig, StudentForSequenceClassification

    torch.manual_seed(0)
    options = dict(ATTENTIONS[name].small_options)
    model = StudentForSequenceClassification(StudentConfig(attention=name, attention_options=options, **SMALL)).eval()
    tokens = torch.randint(5, SMALL["vocab_size"], (4, 48))
    mask = torch.ones_like(tokens)
    mask[1, 20:] = 0
    with torch.no_grad():
        expected = model.double()(tokens, mask).logits
        logits = model.to(device, dtype)(tokens.to(device), mask.to(device)).logits.cpu().double()
    error = float((logits - expected).abs().max() / expected.abs().max())
    kind = str(dtype).removeprefix("torch.")
    return {"attention": name, "dtype": kind, "error": error, "passed": error <= TOLERANCES[kind]}


def lengths_and_mask(batch_size: int, length: int, device: str) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the lengths (B,) of texts of half to all of ``length`` tokens, and their mask (B, N) on the device."""
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(-(-length // 2), length + 1, (batch_size,), generator=generator)
    lengths[0] = length
    return lengths, (torch.arange(length) < lengths[:, None]).to(device)


def contenders(batch_size: int, length: int, device: str) -> dict[str, Callable[[], Any]]:
    """Return calls that attend in ``batch_size`` texts of half to all of ``length`` tokens, by name."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from students.attention.ops.favor import favor_attention
    from students.attention.ops.orthogonal_projection import draw_projection

    generator = torch.Generator().manual_seed(0)
    shape = (3, batch_size, length, NUM_HEADS, HEAD_SIZE)
    query, key, value = torch.randn(shape, device=device, dtype=torch.bfloat16).transpose(2, 3)
    lengths, mask = lengths_and_mask(batch_size, length, device)
    projection = draw_projection(NUM_FEATURES, HEAD_SIZE, generator).to(device)
    performer = (query, key, value, mask, projection)
    calls: dict[str, Callable[[], Any]] = {
        "sdpa": partial(scaled_dot_product_attention, query, key, value, attn_mask=mask[:, None, None, :]),
        "performer": partial(favor_attention, *performer, form="linear"),
    }
    if device == "cuda":
        from torch.nn.attention.varlen import varlen_attn

        packed_query, packed_key, packed_value = (tensor.transpose(1, 2)[mask] for tensor in (query, key, value))
        ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(device, torch.int32)
        calls["packed"] = partial(varlen_attn, packed_query, packed_key, packed_value, ends, ends, length, length)
        calls["performer compiled"] = partial(torch.compile(favor_attention, dynamic=True), *performer)
        if find_spec("triton"):
            from students.attention.ops.favor_triton import favor_in_triton

            calls["performer triton"] = partial(favor_in_triton, *performer)
    return calls


def encoders(batch_size: int, length: int, device: str) -> dict[str, Callable[[], Any]]:
    """Return calls of a student's layers on ``batch_size`` texts of half to all of ``length`` tokens, by name."""
    import torch

    from students import StudentConfig, StudentModel
    from students.unpadded import encode_without_pads

    _, mask = lengths_and_mask(batch_size, length, device)
    shape = (batch_size, length, LARGE["hidden_size"])
    states = torch.randn(shape, device=device, dtype=torch.bfloat16)
    calls: dict[str, Callable[[], Any]] = {}
    for name in ("softmax", "performer"):
        encoder = StudentModel(StudentConfig(attention=name, **LARGE)).eval().to(device, torch.bfloat16).encoder
        calls[name] = partial(encoder, states, mask, first_token_only=True)
        calls[f"{name} unpadded"] = partial(encode_without_pads, encoder, states, mask)
        if device == "cuda":
            calls[f"{name} compiled"] = partial(torch.compile(encoder, dynamic=True), states, mask, True)
    return calls


def time_point(
    contenders: Callable[[int, int, str], dict[str, Callable[[], Any]]],
    batch_size: int,
    length: int,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Time all contenders of one point against the first; null with a reason where that cannot be done."""
    import torch

    from distill.benchmark.timing import (
        PointError,
        memory_errors,
        ratio_of_medians,
        time_interleaved,
        typical_seconds,
    )

    point = {"batch_size": batch_size, "length": length}
    prepare = partial(contenders, batch_size, length, options.device)
    synchronize = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    try:
        with memory_errors(), torch.inference_mode():
            times = time_interleaved(prepare, seconds=options.seconds, synchronize=synchronize)
    except PointError as error:
        return [point | {"way": None, "reason": str(error)}]
    rows = []
    for name, taken in times.items():
        speedup, low, high = ratio_of_medians(next(iter(times.values())), taken)
        figures = {"milliseconds": 1000 * typical_seconds(taken), "speedup": speedup, "low": low, "high": high}
        rows.append(point | {"way": name} | figures)
    return rows


def try_launcher(name: str, device: str) -> dict[str, Any]:
    """Run a few steps of the demo under a launcher; the last line that it printed says why it failed."""
    import torch

    processes = ("--num_processes", str(max(1, torch.cuda.device_count())))
    launch = (str(Path(sys.executable).with_name("accelerate")), "launch", *processes)
    where = (
        ("--config_file", str(ROOT / "configs" / "accelerate" / LAUNCHERS[name])) if device == "cuda" else ("--cpu",)
    )
    script = (str(ROOT / "pipelines" / "distill.py"), "--config", str(ROOT / "configs" / "demo.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        command = (*launch, *where, *script, *SHORT_RUN, "--run_dir", str(Path(folder) / "run"))
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    row = {"launcher": name, "seconds": round(time.perf_counter() - start, 1), "passed": done.returncode == 0}
    return row if row["passed"] else row | {"reason": said[-1] if said else f"exit code {done.returncode}"}


def main() -> int:
    """Do the parts, print and write."""
    options = parse()
    import torch
    from tqdm import tqdm

    from distill.utils.environment import describe_environment
    from distill.utils.files import write_atomically
    from students import ATTENTIONS

    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU is visible here; --device cpu tries the script itself")
    writable_folder(str(options.output.parent))
    record: dict[str, Any] = {"environment": describe_environment(options.device)}

    def keep(part: str, rows: list[dict[str, Any]]) -> None:
        record[part] = rows
        write_atomically(options.output, json.dumps(record, indent=1) + "\n")

    if "checks" in options.parts:
        cases = [(name, dtype) for name in ATTENTIONS for dtype in (torch.float32, torch.bfloat16)]
        keep("checks", [check_mechanism(name, dtype, options.device) for name, dtype in tqdm(cases, desc="checks")])
    grid = [(batch, length) for length in options.lengths for batch in options.batch_sizes]
    for part, ways in (("attention", contenders), ("layers", encoders)):
        if part in options.parts:
            points = [time_point(ways, batch, length, options) for batch, length in tqdm(grid, desc=part)]
            keep(part, [row for rows in points for row in rows])
    if "training" in options.parts:
        keep("training", [try_launcher(name, options.device) for name in tqdm(LAUNCHERS, desc="training")])
    print(summary(record) + f"\nwritten to {options.output}")
    return int(not all(row["passed"] for part in ("checks", "training") for row in record.get(part, [])))


def summary(record: dict[str, Any]) -> str:
    """Return what was found as text: failed checks by name, speedups over softmax attention, launchers."""
    lines = []
    if checks := record.get("checks"):
        failed = [
            f"{row['attention']} in {row['dtype']}: off by {row['error']:.1e}" for row in checks if not row["passed"]
        ]
        lines += [f"checks: {len(checks) - len(failed)} of {len(checks)} agree with fp64 on the CPU", *failed]
    for row in (*record.get("attention", []), *record.get("layers", [])):
        point = f"{row['batch_size']:>5} texts of {row['length']:>6} tokens"
        if row["way"] is None:
            lines.append(f"{point}  {row['reason']}")
        else:
            interval = f"{row['speedup']:6.2f} [{row['low']:.2f}, {row['high']:.2f}] times as fast as softmax"
            lines.append(f"{point}  {row['way']:20}{row['milliseconds']:10.3f} ms {interval}")
    for row in record.get("training", []):
        lines.append(
            f"{row['launcher']}: {'a step taken' if row['passed'] else row['reason']}, {row['seconds']:.0f} s"
        )
    return "\n".join(lines)


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
