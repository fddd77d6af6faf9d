"""Time and weigh every attention mechanism against SDPA, alone and in a whole student, and fit how both grow.

    python pipelines/bench_mechanisms.py
    python pipelines/bench_mechanisms.py --attentions performer longformer --lengths 512 2048 8192 --seconds 10
    python pipelines/bench_mechanisms.py --lengths --student_lengths 512 --training_lengths 512 --batch_size 15

One example unless --batch_size says otherwise, fp32, every mechanism with its default options. Alone: 12 heads of 64
as in BERT-base, projections left out where the mechanism has the usual ones. In a student: 6 layers, hidden size 384,
12 heads, as in MiniLM-L6; in training: forward and backward through that student, without the optimizer's step. All
mechanisms of a length are timed in the same interleaved rounds, in a process that keeps freed memory
(`distill.benchmark.allocator`). Memory is the rise of the process's peak during a pass, beside weights and gradients,
each point in a fresh process. Exponents are fitted to the mechanism alone, over 512 tokens and more.
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

from distill.utils.cli import Parser, positive, positive_seconds, run, writable_folder
from distill.utils.errors import UserError, choices_hint

NUM_HEADS, HEAD_SIZE = 12, 64
STUDENT_SHAPE: dict[str, Any] = {
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
CORE, STUDENT, TRAINING = "core", "student", "training"
FIT_FROM = 512  # below, fixed costs hide the growth
RIVAL = "softmax"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    alone, inside = [128, 512, 1024, 2048, 4096, 8192], [128, 512, 2048, 4096]
    output = Path("runs/bench/bench_mechanisms.json")
    default = "(default %(default)s)"
    add("--attentions", nargs="+", metavar="NAME", help="mechanisms to time (default: all)")
    add("--lengths", type=positive, nargs="*", default=alone, metavar="TOKENS", help=f"lengths, alone {default}")
    add("--student_lengths", type=positive, nargs="*", default=inside, metavar="TOKENS", help=f"in students {default}")
    trained = "lengths, forward and backward in students (default: none)"
    add("--training_lengths", type=positive, nargs="*", default=[], metavar="TOKENS", help=trained)
    add("--batch_size", type=positive, default=1, metavar="N", help=f"texts at once {default}")
    seconds = "time per length, exceeded to reach 6 rounds"
    add("--seconds", type=positive_seconds, default=20.0, metavar="SECONDS", help=f"{seconds} {default}")
    add("--output", type=Path, default=output, metavar="FILE", help=f"file to write {default}")
    return parser.parse_args(arguments)


def build(kind: str, name: str, length: int, batch_size: int) -> Any:
    """Return a call that runs one mechanism, or a student with it, on random texts of ``length`` tokens."""
    import torch

    torch.manual_seed(0)
    if kind == TRAINING:
        return training_call(name, length, batch_size)
    call = build_core(name, length, batch_size) if kind == CORE else student_call(name, length, batch_size)
    return torch.inference_mode()(call)


def build_core(name: str, length: int, batch_size: int) -> Any:
    """Return one mechanism on random queries, keys and values, or on hidden states where it has no usual ones."""
    import torch

    from students import ATTENTIONS, StudentConfig

    sizes: dict[str, Any] = {
        "num_attention_heads": NUM_HEADS,
        "hidden_size": NUM_HEADS * HEAD_SIZE,
        "max_position_embeddings": length,
    }
    module = ATTENTIONS[name](StudentConfig(attention=name, **sizes), layer=0).eval()
    module.initialize_features()
    on_heads = module.works_on_heads()
    shape = (NUM_HEADS, length, HEAD_SIZE) if on_heads else (length, NUM_HEADS * HEAD_SIZE)
    tensors = [torch.randn(batch_size, *shape) for _ in range(3 if on_heads else 1)]
    mix: Any = module.attend if on_heads else module.mix
    return partial(mix, *tensors, mask=None)


def student_call(name: str, length: int, batch_size: int) -> Any:
    """Return a classifier of untrained weights on random tokens."""
    import torch

    model = random_student(name, length)
    tokens = torch.randint(model.config.vocab_size, (batch_size, length))
    return partial(model, input_ids=tokens, attention_mask=torch.ones_like(tokens))


def training_call(name: str, length: int, batch_size: int) -> Any:
    """Return forward and backward through such a classifier, whose gradients add up in place."""
    call = student_call(name, length, batch_size)
    call.func.train()

    def step() -> None:
        call().logits.sum().backward()

    return step


def random_student(name: str, length: int) -> Any:
    """Build a student out of an untrained BERT of its depth that reads ``length`` tokens."""
    from transformers import BertConfig, BertForSequenceClassification

    from students import student_from_teacher

    config = BertConfig(**STUDENT_SHAPE, max_position_embeddings=max(length, 512))
    layers = list(range(STUDENT_SHAPE["num_hidden_layers"]))
    student, _ = student_from_teacher(BertForSequenceClassification(config), layer_map=layers, attention=name, seed=0)
    return student.eval()


def peak_megabytes(kind: str, name: str, length: int, batch_size: int) -> float:
    """Return by how much one pass raises the peak of this process, which has run nothing else."""
    from distill.benchmark.memory_worker import start_resident_peak

    call = build(kind, name, length, batch_size)
    call()
    peak = start_resident_peak()
    call()
    return peak() / 1e6


def weigh(points: list[tuple[str, str, int]], batch_size: int) -> dict[tuple[str, str, int], float]:
    """Return the peak memory of every point in MB, each from a process forked off one that only imported."""
    from tqdm import tqdm

    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # freed tensors go back at once, or the next run takes them unseen
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "students", "distill.benchmark.memory_worker"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        return {point: pool.apply(peak_megabytes, (*point, batch_size)) for point in tqdm(points, desc="memory")}


def exponent(values: dict[int, float | None]) -> float | None:
    """Return the slope of log(value) over log(length) by least squares, over lengths of 512 and more."""
    import numpy as np

    points = [(length, value) for length, value in values.items() if length >= FIT_FROM and value]
    if len(points) < 2:
        return None
    logs = np.log(np.array(points))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def time_points(
    kind: str, names: list[str], length: int, batch_size: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Time all mechanisms of one length against SDPA in the same rounds: milliseconds, speedup and its interval.

    A length that would take far too long has nulls and a reason, and the others go on.
    """
    from distill.benchmark.timing import PointError, ratio_of_medians, time_interleaved, typical_seconds

    try:
        times = time_interleaved(
            lambda: {name: build(kind, name, length, batch_size) for name in names}, seconds=seconds
        )
    except PointError as error:
        reason = f"{error}; give more --seconds or fewer --attentions"
        return {name: dict.fromkeys(("milliseconds", "speedup", "low", "high")) | {"reason": reason} for name in names}
    found = {}
    for name in names:
        speedup, low, high = ratio_of_medians(times[RIVAL], times[name])
        milliseconds = 1000 * typical_seconds(times[name])
        found[name] = {"milliseconds": milliseconds, "speedup": speedup, "low": low, "high": high}
    return found


def flops(kind: str, name: str, length: int) -> dict[str, int]:
    """Return the operations of a whole student; those of a mechanism alone are part of them."""
    from distill.models.flops import model_flops

    return {"flops": model_flops(random_student(name, length).config, length)} if kind == STUDENT else {}


def main() -> None:
    """Weigh, time, fit, print and write."""
    options = parse()
    writable_folder(str(options.output.parent))
    from tqdm import tqdm

    from distill.benchmark.allocator import keep_freed_memory
    from distill.utils.environment import describe_environment
    from distill.utils.files import write_atomically
    from students import ATTENTIONS, STUDENTS

    for name in options.attentions or []:
        if name not in STUDENTS:
            raise UserError(f"--attentions {name}: {choices_hint(name, STUDENTS)}")
    students = list(dict.fromkeys([RIVAL, *(options.attentions or STUDENTS)]))
    names = {CORE: [name for name in students if name in ATTENTIONS], STUDENT: students, TRAINING: students}
    lengths = {CORE: options.lengths, STUDENT: options.student_lengths, TRAINING: options.training_lengths}
    grid = [(kind, length) for kind in lengths for length in lengths[kind]]
    batch_size = options.batch_size
    freed_memory_kept = keep_freed_memory()
    memory = weigh([(kind, name, length) for kind, length in grid for name in names[kind]], batch_size)
    rows: dict[str, dict[str, Any]] = {
        name: {"attention": name, "claims": STUDENTS[name].complexity, CORE: [], STUDENT: [], TRAINING: []}
        for name in students
    }
    for kind, length in tqdm(grid, desc="time"):
        for name, times in time_points(kind, names[kind], length, batch_size, options.seconds).items():
            point = {"length": length, **times, "megabytes": memory[kind, name, length], **flops(kind, name, length)}
            rows[name][kind].append(point)
    for row in rows.values():
        for key, unit in (("time_exponent", "milliseconds"), ("memory_exponent", "megabytes")):
            row[key] = exponent({point["length"]: point[unit] for point in row[CORE]})
    record: dict[str, Any] = {
        **{"num_heads": NUM_HEADS, "head_size": HEAD_SIZE, "student_shape": STUDENT_SHAPE},
        "batch_size": batch_size,
        "freed_memory_kept": freed_memory_kept,
        "environment": describe_environment("cpu"),
        "rows": list(rows.values()),
    }
    write_atomically(options.output, json.dumps(record, indent=1) + "\n")
    for kind in lengths:
        if lengths[kind]:
            print(table(record["rows"], kind, lengths[kind]))
    print(f"written to {options.output}")


def table(rows: list[dict[str, Any]], kind: str, lengths: list[int]) -> str:
    """Return speedups over SDPA by length, and the fitted exponents, as text."""
    header = "".join(f"{length:>8}" for length in lengths)
    lines = [f"{kind:18}{header}{'time ~N^':>10}{'memory ~N^':>12}  claims"]
    for row in rows:
        speedups = "".join(f"{point['speedup'] or math.nan:>7.2f}x" for point in row[kind])
        exponents = [math.nan if row[key] is None else row[key] for key in ("time_exponent", "memory_exponent")]
        if row[kind]:
            lines.append(f"{row['attention']:18}{speedups}{exponents[0]:>10.2f}{exponents[1]:>12.2f}  {row['claims']}")
    return "\n".join(lines) + "\n"


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
