"""Time a training step of causal language models of every mechanism, by length and depth, and fit how it grows.

    python pipelines/bench_text.py
    python pipelines/bench_text.py --mechanisms softmax performer --lengths 128 512 2048 8192 --layers 4
    python pipelines/bench_text.py --batch-size 1       # as many windows at every length, not as many tokens

Every step reads the same number of tokens, so that a mechanism of linear cost takes the same time at every length. All
mechanisms of one length and depth are timed in the same rounds. Prints the times and writes them as JSON, with the
memory that is kept for the backward pass. Exit code 0; 2 for a mistake in the command.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.utils.cli import Parser, positive, positive_seconds, run, writable_folder

DOCUMENTS = ("softmax", "transformer_xl", "sparse", "compressive", "reformer", "linear", "performer")
VOCABULARY = 261
"""Of bytes."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add, default = parser.add_argument, "(default %(default)s)"
    add("--mechanisms", nargs="+", default=list(DOCUMENTS), metavar="NAME", help=f"mechanisms to time {default}")
    add("--lengths", type=positive, nargs="+", default=[128, 512, 2048], metavar="N", help=f"tokens {default}")
    add("--layers", type=positive, nargs="+", default=[2, 4, 8], metavar="L", help=f"numbers of layers {default}")
    add("--hidden-size", type=positive, default=128, metavar="D", help=f"width of the layers {default}")
    add("--heads", type=positive, default=4, metavar="H", help=f"attention heads {default}")
    add("--batch-tokens", type=positive, default=2048, metavar="TOKENS", help=f"batch size times length {default}")
    add(
        "--batch-size",
        type=positive,
        metavar="B",
        help="windows of a step at every length, in place of --batch-tokens",
    )
    add("--seconds", type=positive_seconds, default=2.0, metavar="S", help=f"for each mechanism and point {default}")
    add("--device", choices=("cpu", "cuda"), default="cpu", help=f"device {default}")
    output = Path("runs/bench/text.json")
    add("--output", type=Path, default=output, metavar="FILE", help=f"file to write {default}")
    return parser.parse_args(arguments)


def main() -> int:
    """Time every length and depth, print and write."""
    options = parse()
    writable_folder(options.output.parent)
    import torch

    from distill.benchmark.growth import growth_exponent
    from distill.models.loading import check_device
    from distill.utils.environment import describe_environment
    from distill.utils.files import write_atomically
    from distill.utils.progress import progress_bar
    from distill.utils.record_json import to_json
    from pipelines.run.text_steps import time_steps

    check_device(options.device)
    check_sizes(options)
    grid = [(layers, length) for layers in options.layers for length in options.lengths]
    points = []
    with progress_bar(grid, name="bench", unit="point") as bar:
        for layers, length in bar:
            models = make_models(options, layers, length)
            size = options.batch_size or max(1, options.batch_tokens // length)
            generator = torch.Generator().manual_seed(0)
            tokens = torch.randint(5, VOCABULARY, (size, length + 1), generator=generator).to(options.device)
            seconds = options.seconds * len(models)
            steps = time_steps(models, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), None, seconds)
            points += [{"layers": layers, **to_json(step)} for step in steps]
    exponents = {
        f"{name}-{layers}": {
            key: growth_exponent(
                [point for point in points if (point["model"], point["layers"]) == (name, layers)], key
            )
            for key in ("milliseconds", "activation_megabytes")
        }
        for name in options.mechanisms
        for layers in options.layers
    }
    record = {
        "points": points,
        "exponents": exponents,
        "hidden_size": options.hidden_size,
        "batch_tokens": None if options.batch_size else options.batch_tokens,
        "batch_size": options.batch_size,
        "environment": describe_environment(options.device),
    }
    write_atomically(options.output, json.dumps(record, indent=1) + "\n")
    for point in points:
        taken = point["reason"] if point["milliseconds"] is None else f"{point['milliseconds']:.1f} ms"
        print(f"{point['model']:16} {point['layers']} layers, {point['length']:5} tokens: {taken}")
    print(f"written to {options.output}")
    return 0


def check_sizes(options: argparse.Namespace) -> None:
    """Refuse a mechanism that there is not, or has no causal form, and heads that do not fit; UserError says."""
    from distill.utils.errors import UserError, choices_hint
    from students import ATTENTIONS

    able = [name for name, each in ATTENTIONS.items() if each.why_not_causal is None]
    for name in options.mechanisms:
        if name not in able:
            reason = f": it {ATTENTIONS[name].why_not_causal}" if name in ATTENTIONS else ""
            raise UserError(f"--mechanisms {name} has no causal form{reason}; {choices_hint(name, able)}")
    if options.hidden_size % options.heads:
        raise UserError(f"--heads {options.heads} must divide --hidden-size {options.hidden_size}")


def make_models(options: argparse.Namespace, layers: int, length: int) -> dict:
    """Return an untrained causal model of every mechanism."""
    import torch

    from students import StudentConfig, StudentForCausalLM

    models = {}
    for name in options.mechanisms:
        torch.manual_seed(0)
        config = StudentConfig(
            vocab_size=VOCABULARY,
            hidden_size=options.hidden_size,
            num_attention_heads=options.heads,
            intermediate_size=4 * options.hidden_size,
            num_hidden_layers=layers,
            max_position_embeddings=length,
            attention_probs_dropout_prob=0.0,  # with it PyTorch leaves its fused kernel, and most have no map to drop
            attention=name,
            causal=True,
        )
        models[name] = StudentForCausalLM(config).to(options.device)
    return models


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
