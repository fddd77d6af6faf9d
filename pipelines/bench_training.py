"""Time distillation against the usual ways to run the same losses, interleaved in one process.

    python pipelines/bench_training.py --config configs/demo.yaml
    python pipelines/bench_training.py --config configs/sst2.yaml --teacher.checkpoint TEACHER --data.dir FOLDER

The losses are those of the first stage. Four ways: `ours` (batches of one length, teacher outputs from disk);
`random order` and `random order, cached` (padded to the longest of the batch); `padded` (to data.max_length, the
teacher runs in every step). Ratios of examples/s with 95 % intervals go to <run_dir>/bench_training.json.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.config.parsing import parse_config
from distill.config.schema import Config
from distill.config.validation import check_config
from distill.utils.cli import run
from distill.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from distill.data.batching import TokenizedExamples
    from pipelines.run.context import RunContext
    from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs

EXAMPLES = 6400
STEPS_PER_ROUND = 4
SECONDS = 90.0


def main() -> None:
    """Build one student per way, time rounds of training steps in turn, print and write the ratios."""
    config = parse_config(description=__doc__)
    from distill.benchmark.timing import ratio_of_medians, time_interleaved, typical_seconds
    from distill.objectives.loss_fallbacks import replace_unsupported_losses
    from distill.utils.environment import describe_environment
    from distill.utils.files import write_atomically
    from distill.utils.findings import raise_on_error
    from students import STUDENTS

    limit = min(EXAMPLES, config.data.max_train_examples or EXAMPLES)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_train_examples=limit))
    check_config(config, STUDENTS)
    if not config.stages:
        raise UserError("stages are auto: give a configuration with stages, of which the first is timed")
    config, replaced = replace_unsupported_losses(config, STUDENTS[config.student.attention])
    raise_on_error(replaced)
    with tempfile.TemporaryDirectory() as temporary:
        context, ways = make_ways(config, Path(temporary))
        times = time_interleaved(lambda: ways, seconds=SECONDS)
    stage, output = config.stages[0], context.folder.path / "bench_training.json"
    rows = []
    for name, seconds in times.items():
        ratio, low, high = ratio_of_medians(seconds, times["ours"])
        speed = STEPS_PER_ROUND * stage.batch_size / typical_seconds(seconds)
        rows.append({"way": name, "examples_per_second": speed, "ours_is_faster_by": ratio, "low": low, "high": high})
        print(f"{name:22} {speed:7.0f} examples/s   ours is {ratio:.2f}x [{low:.2f}, {high:.2f}]")
    record = {"task": config.task, "losses": stage.losses, "rounds": times["ours"].size, "rows": rows}
    record["environment"] = describe_environment(context.device)
    write_atomically(output, json.dumps(record, indent=1) + "\n")
    print(f"written to {output}")


def make_ways(config: Config, cache: Path) -> tuple[RunContext, dict[str, Callable[[], None]]]:
    """Return a function per way that takes `STEPS_PER_ROUND` training steps on random batches, the same for all."""
    import numpy as np

    from distill.data.batching import length_grouped_batches
    from distill.data.tokenization import tokenize
    from distill.objectives.capture_plan import plan_stage
    from distill.training.accelerator import autocast_dtype, make_accelerator
    from distill.training.context import StageInputs
    from distill.training.loss_meter import LossMeter
    from distill.training.run_folder import RunFolder
    from distill.training.stepper import Stepper
    from pipelines.run.context import DistillationSetup, make_context, student_layer_map
    from pipelines.run.student import build_student
    from teachers.finetuning import starting_point
    from teachers.loading import freeze
    from teachers.output_cache import stage_targets
    from teachers.outputs import OnlineTeacherOutputs

    context = make_context(config, make_accelerator(config), RunFolder(Path(config.run_dir or "runs")))
    accelerator, stage = context.run.accelerator, config.stages[0]
    teacher = starting_point(config, context.task, context.splits)
    freeze(teacher.model.to(accelerator.device))
    examples = tokenize(context.splits.train, teacher.tokenizer, config.data.max_length)
    layer_map = student_layer_map(config, teacher.model)
    setup = DistillationSetup(teacher, False, examples, examples, {}, layer_map, config.stages)
    plan = plan_stage(stage, layer_map, teacher.model.config.num_hidden_layers)
    live = OnlineTeacherOutputs(teacher.model, plan, autocast_dtype(accelerator))
    cached = stage_targets(accelerator, teacher.model, plan, examples, config.cache, cache).outputs
    order = np.random.default_rng(0).permutation(len(examples))
    in_random_order = [order[start : start + stage.batch_size] for start in range(0, len(order), stage.batch_size)]
    of_one_length = length_grouped_batches(examples.lengths, stage.batch_size, seed=0, epoch=0)
    padded = dataclasses.replace(examples, pad_multiple=config.data.max_length)

    def way(
        tokens: TokenizedExamples,
        batches: list[np.ndarray],
        outputs: CachedTeacherOutputs | OnlineTeacherOutputs | None,
    ) -> Callable[[], None]:
        student = build_student(context, teacher.model, setup, stage.attention)
        stepper = Stepper(context.run, student, stage, StageInputs(tokens, plan, outputs))
        stepper.wrapped.train()
        meter = LossMeter(accelerator, stage.name, stage.losses)
        draw = np.random.default_rng(1)
        whole = [batch for batch in batches if len(batch) == stage.batch_size]

        def take_steps() -> None:
            for index in draw.choice(len(whole), STEPS_PER_ROUND, replace=False):
                stepper.take_step(whole[index], stage, meter)

        return take_steps

    return context, {
        "ours": way(examples, of_one_length, cached),
        "random order, cached": way(examples, in_random_order, cached),
        "random order": way(examples, in_random_order, live),
        "padded": way(padded, in_random_order, live),
    }


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
