"""Time training against the usual ways to take the same steps, interleaved in one process.

    python pipelines/bench_training.py --config configs/demo.yaml
    python pipelines/bench_training.py --config configs/sst2.yaml --teacher.checkpoint TEACHER --data.dir FOLDER

layers       the losses of the first stage, in four ways: `ours` (batches of one length, teacher outputs from disk);
             `random order` and `random order, cached` (padded to the longest of the batch); `padded` (to
             data.max_length, the teacher runs in every step).
decisions    hidden states and logits: `ours`, `ours, live` and, where it is installed, `TextBrewer`.
fine-tuning  the teacher: `ours`, and transformers' `Trainer` with batches of about one length.

Takes five minutes. Ratios of examples/s with 95 % intervals go to <run_dir>/bench_training.json.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.config.attention_fit import mechanism_of_student
from distill.config.parsing import parse_config
from distill.config.schema import Config
from distill.config.student_schema import FIT
from distill.config.validation import check_config
from distill.utils.cli import run
from distill.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from distill.benchmark.timing import Times
    from distill.config.schema import StageConfig
    from distill.data.batching import TokenizedExamples
    from distill.objectives.capture_plan import CapturePlan
    from distill.training.context import StageInputs
    from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs

EXAMPLES = 6400
STEPS_PER_ROUND = 4
SECONDS = 90.0
"""Of a comparison."""

Ways = dict[str, Callable[[], None]]
"""A function per way that takes `STEPS_PER_ROUND` training steps."""


def main() -> None:
    """Build one model per way, time rounds of training steps in turn, print and write the ratios."""
    config = parse_config(description=__doc__)
    from distill.benchmark.timing import time_interleaved
    from distill.objectives.loss_fallbacks import replace_unsupported_losses
    from distill.utils.environment import describe_environment
    from distill.utils.files import write_atomically
    from distill.utils.findings import raise_on_error
    from students import STUDENTS

    limit = min(EXAMPLES, config.data.max_train_examples or EXAMPLES)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_train_examples=limit))
    check_config(config, STUDENTS)
    if config.student.attention == FIT:
        raise UserError("student.attention is fit: what it finds is not known here; name a mechanism, or a list")
    if not config.stages:
        raise UserError("stages are auto: give a configuration with stages, of which the first is timed")
    config, replaced = replace_unsupported_losses(config, mechanism_of_student(config.student, STUDENTS))
    raise_on_error(replaced)
    record: dict[str, Any] = {"task": config.task, "losses": config.stages[0].losses}
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(config, Path(temporary))
        output = bench.context.folder.path / "bench_training.json"
        record["environment"] = describe_environment(bench.context.device)
        for name, make in (
            ("layers", bench.layers),
            ("decisions", bench.decisions),
            ("fine-tuning", bench.fine_tuning),
        ):
            ways, batch_size = make()
            times = time_interleaved(partial(dict, ways), seconds=SECONDS, synchronize=bench.synchronize)
            rows = compare(times, batch_size)
            record[name] = rows
            print(f"{name}\n" + "\n".join(map(in_words, rows)))
            write_atomically(output, json.dumps(record, indent=1) + "\n")
    print(f"written to {output}")


def compare(times: Times, batch_size: int) -> list[dict[str, Any]]:
    """Return how many examples a second each way takes, and how much faster the first one, ours, is."""
    from distill.benchmark.timing import ratio_of_medians, typical_seconds

    rows = []
    for name, seconds in times.items():
        ratio, low, high = ratio_of_medians(seconds, times["ours"])
        speed = STEPS_PER_ROUND * batch_size / typical_seconds(seconds)
        rows.append({"way": name, "examples_per_second": speed, "ours_is_faster_by": ratio, "low": low, "high": high})
    return rows


def in_words(row: dict[str, Any]) -> str:
    """Return a row of :func:`compare` as a line."""
    interval = f"{row['ours_is_faster_by']:.2f}x [{row['low']:.2f}, {row['high']:.2f}]"
    return f"  {row['way']:22} {row['examples_per_second']:7.0f} examples/s   ours is {interval}"


class Bench:
    """What is compared: one teacher, the same examples, students that start alike.

    Args:
        config: with stages, of which the first says losses and batch size.
        cache: a folder for teacher outputs.
    """

    def __init__(self, config: Config, cache: Path) -> None:
        import numpy as np

        from distill.data.batching import length_grouped_batches
        from distill.data.tokenization import tokenize
        from distill.training.accelerator import autocast_dtype, make_accelerator
        from distill.training.run_folder import RunFolder
        from pipelines.run.context import DistillationSetup, make_context, student_layer_map
        from teachers.finetuning import starting_point
        from teachers.loading import freeze

        self.cache, self.stage = cache, config.stages[0]
        self.context = make_context(config, make_accelerator(config), RunFolder(Path(config.run_dir or "runs")))
        self.accelerator = self.context.run.accelerator
        self.dtype = autocast_dtype(self.accelerator)
        teacher = starting_point(config, self.context.task, self.context.splits)
        freeze(teacher.model.to(self.accelerator.device))
        self.teacher = teacher
        self.examples = tokenize(self.context.splits.train, teacher.tokenizer, config.data.max_length)
        self.layer_map = student_layer_map(config, teacher.model)
        setup = DistillationSetup(teacher, False, self.examples, self.examples, {}, self.layer_map, config.stages)
        self.setup = setup
        order, size = np.random.default_rng(0).permutation(len(self.examples)), self.stage.batch_size
        self.in_random_order = [order[start : start + size] for start in range(0, len(order), size)]
        self.of_one_length = length_grouped_batches(self.examples.lengths, size, seed=0, epoch=0)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        import torch

        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    def layers(self) -> tuple[Ways, int]:
        """Return four ways to take steps of the first stage, and its batch size."""
        plan, live, cached = self._teacher_outputs(self.stage)
        padded = dataclasses.replace(self.examples, pad_multiple=self.context.config.data.max_length)
        ways = {
            "ours": self._steps(self.stage, plan, self.examples, self.of_one_length, cached),
            "random order, cached": self._steps(self.stage, plan, self.examples, self.in_random_order, cached),
            "random order": self._steps(self.stage, plan, self.examples, self.in_random_order, live),
            "padded": self._steps(self.stage, plan, padded, self.in_random_order, live),
        }
        return ways, self.stage.batch_size

    def decisions(self) -> tuple[Ways, int]:
        """Return ways to match hidden states of all layers and logits, ours and TextBrewer's, and the batch size."""
        from distill.benchmark.rivals import has_textbrewer, textbrewer_steps
        from distill.objectives.capture_plan import hidden_state_targets
        from pipelines.run.student import build_student

        stage = dataclasses.replace(self.stage, name="decisions", losses={"hidden_states": 1.0, "logits": 1.0})
        plan, live, cached = self._teacher_outputs(stage)
        ways = {
            "ours": self._steps(stage, plan, self.examples, self.of_one_length, cached),
            "ours, live": self._steps(stage, plan, self.examples, self.of_one_length, live),
        }
        if has_textbrewer():
            model = self.teacher.model
            pairs = list(enumerate(hidden_state_targets(self.layer_map, model.config.num_hidden_layers)))
            student = build_student(self.context, model, self.setup, stage.attention)
            what: tuple[Any, ...] = (model, student, pairs, stage.temperature, self.examples, stage.batch_size)
            ways["TextBrewer"] = repeated(textbrewer_steps(*what, bf16=self.dtype is not None))
        return ways, stage.batch_size

    def fine_tuning(self) -> tuple[Ways, int]:
        """Return two ways to fine-tune the teacher on labels, and the batch size."""
        from distill.benchmark.rivals import trainer_steps
        from distill.config.schema import StageConfig
        from distill.models.windowed_bert import plain_class
        from distill.training.context import StageInputs
        from teachers.finetuning import starting_point
        from teachers.first_token import reading_first_token

        config, context, size = self.context.config, self.context, self.stage.batch_size
        ours, theirs = (starting_point(config, context.task, context.splits) for _ in range(2))
        stage = StageConfig("teacher", 1, 1e-5, {"labels": 1.0}, train="all", dropout=True, batch_size=size)
        inputs = StageInputs(self.examples)
        ways = {"ours": self._stepping(reading_first_token(ours.model), stage, inputs, self.of_one_length)}
        model = plain_class(theirs.model)(theirs.model.config).to(self.accelerator.device)  # of any weights
        bf16 = self.dtype is not None
        ways["Trainer"] = repeated(trainer_steps(model, theirs.tokenizer, self.examples, size, bf16=bf16))
        return ways, size

    def _teacher_outputs(
        self, stage: StageConfig
    ) -> tuple[CapturePlan, OnlineTeacherOutputs, CachedTeacherOutputs | Any]:
        """Return what a stage reads of the teacher's outputs, and these, live and from disk."""
        from distill.objectives.capture_plan import plan_stage
        from teachers.output_cache import stage_targets
        from teachers.outputs import OnlineTeacherOutputs

        model, folder = self.teacher.model, self.cache / stage.name
        folder.mkdir()
        plan = plan_stage(stage, self.layer_map, model.config.num_hidden_layers)
        cache = self.context.config.cache
        cached = stage_targets(self.accelerator, model, plan, self.examples, cache, folder).outputs
        return plan, OnlineTeacherOutputs(model, plan, self.dtype), cached

    def _steps(
        self,
        stage: StageConfig,
        plan: CapturePlan,
        tokens: TokenizedExamples,
        batches: list[np.ndarray],
        outputs: Any,
    ) -> Callable[[], None]:
        """Return steps of a stage on a student of its own."""
        from distill.training.context import StageInputs
        from pipelines.run.student import build_student

        student = build_student(self.context, self.teacher.model, self.setup, stage.attention, quiet=True)
        return self._stepping(student, stage, StageInputs(tokens, plan, outputs), batches)

    def _stepping(
        self, model: PreTrainedModel, stage: StageConfig, inputs: StageInputs, batches: list[np.ndarray]
    ) -> Callable[[], None]:
        """Return a function that takes steps on whole batches drawn at random, the same for all ways."""
        import numpy as np

        from distill.training.dropout import set_dropout
        from distill.training.loss_meter import LossMeter
        from distill.training.stepper import Stepper

        set_dropout(model, stage.dropout)
        stepper = Stepper(self.context.run, model, stage, inputs)
        stepper.wrapped.train()
        meter = LossMeter(self.accelerator, stage.name, stage.losses)
        draw = np.random.default_rng(1)
        whole = [batch for batch in batches if len(batch) == stage.batch_size]

        def take_steps() -> None:
            for index in draw.choice(len(whole), STEPS_PER_ROUND, replace=False):
                stepper.take_step(whole[index], stage, meter)

        return take_steps


def repeated(take_step: Callable[[], None]) -> Callable[[], None]:
    """Return a function that takes as many steps as a round has."""

    def take_steps() -> None:
        for _ in range(STEPS_PER_ROUND):
            take_step()

    return take_steps


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
