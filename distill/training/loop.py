"""The one loop: teacher fine-tuning, every distillation stage and the baseline run through it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from distill.config.schema import StageConfig
from distill.data.batching import length_grouped_batches
from distill.data.text_windows import TextWindows
from distill.training.accelerator import highest
from distill.training.checkpoints import (
    best_path,
    keep_best,
    keep_epoch,
    load_checkpoint,
    load_weights,
    mean_of_epochs,
    save_checkpoint,
)
from distill.training.context import StageInputs, TrainingContext
from distill.training.dropout import set_dropout
from distill.training.loss_meter import LossMeter
from distill.training.progress import Progress, state_problem
from distill.training.schedules import learning_rate_factor, scheduled, set_learning_rate
from distill.training.stepper import Stepper
from distill.training.trackers import flush_trackers, log_figures
from distill.utils.errors import UserError
from distill.utils.interrupts import Interrupted, PostponedSignals
from distill.utils.progress import progress_bar

CHECKPOINT_SHARE = 0.02
"""Of the time of the steps, for checkpoints at the ends of epochs; those every so many steps come on top."""


class StageTrainer:
    """Trains a model in place through one stage, from the newest checkpoint in its folder if there is one.

    Args:
        model: carries the last or the best epoch's weights at the end, or a mean of the last epochs'.
        folder: of the stage's checkpoints.
        evaluate: given the model, its score (higher is better) and its metrics on the held-out part of train.
    """

    def __init__(
        self,
        context: TrainingContext,
        model: PreTrainedModel,
        stage: StageConfig,
        inputs: StageInputs,
        folder: Path,
        evaluate: Callable[[nn.Module], tuple[float, dict[str, float]]],
    ) -> None:
        self.accelerator, self.training = context.accelerator, context.training
        self.label_scale = context.label_scale
        self.model, self.stage, self.inputs = model, stage, inputs
        self.folder, self.evaluate = folder, evaluate
        self.seed = phase_seed(context.seed, stage.name)
        self.total_steps = math.ceil(math.ceil(len(inputs.examples) / stage.batch_size) * stage.epochs)
        set_seed(self.seed % 2**32, device_specific=True)
        set_dropout(model, stage.dropout)
        if self.label_scale is not None:
            self.label_scale.standardise_head(model)
        self.stepper = Stepper(context, model, stage, inputs)
        self.meter = LossMeter(self.accelerator, stage.name, stage.losses)
        self.progress = Progress()
        self.signals = PostponedSignals()

    def run(self) -> Progress:
        """Train to the end of the stage.

        Returns:
            The final progress with the loss history.

        Raises:
            UserError: a loss stops being finite, or none depends on what the stage trains.
            Interrupted: a signal came; the running step was finished and a checkpoint saved.
        """
        try:
            self.resume()
            with self.open_bar() as bar, self.signals:
                while not self.is_done:
                    self.train_epoch(bar)
                    self.finish_epoch()
                if self.progress.global_step % self.training.log_every:
                    self.log_losses(bar)
            self.finish()
        finally:
            self.stepper.release()
            # However it ends: the next stage's checkpoint is to hold nothing but its own model and optimizer.
            self.accelerator.free_memory()
        return self.progress

    def resume(self) -> None:
        """Load the newest whole checkpoint; where there is none, score what the stage starts from.

        Raises:
            UserError: it is of a version that trained scores in another unit.
        """
        saved = load_checkpoint(self.accelerator, self.folder, state_problem)
        if saved is not None:
            self.progress = Progress.from_checkpoint(saved)
            if self.label_scale is not None and not self.progress.is_standardised:
                raise UserError(
                    f"{self.folder} holds a checkpoint of an earlier version, which trained scores in their own unit; "
                    "remove that folder to train this phase from its start"
                )
            self.meter.start_from(self.progress.unlogged)
        # Where labels alone teach, the head starts untrained: what it scores is luck.
        elif self.stage.keep_best_epoch and self.inputs.teacher_outputs is not None:
            score, _ = self.evaluate(self.model)
            self.progress.start_from(score)
            self.save_best_epoch()

    def open_bar(self) -> tqdm:
        """Return the progress bar over all steps of the stage; only the main process shows one."""
        counted: dict[str, Any] = {"total": self.total_steps, "initial": self.progress.global_step}
        return progress_bar(name=self.stage.name, unit="step", disable=not self.accelerator.is_main_process, **counted)

    @property
    def is_done(self) -> bool:
        """Whether every step is taken, or patience is out; an epoch that was begun is finished first."""
        steps_are_taken = self.progress.global_step >= self.total_steps and not self.progress.step
        return steps_are_taken or self.progress.is_out_of_patience(self.stage.patience)

    def train_epoch(self, bar: tqdm) -> None:
        """Take the steps that are left of this epoch, with a line of the history and a checkpoint where due."""
        self.stepper.wrapped.train()
        self.stepper.start_pass(self.progress.epoch)
        batches = length_grouped_batches(
            self.inputs.examples.lengths, self.stage.batch_size, seed=self.seed, epoch=self.progress.epoch
        )
        left = self.total_steps - self.progress.global_step  # of half an epoch the rest is not seen
        for indices in batches[self.progress.step :][:left]:
            self.train_step(indices)
            bar.update()
            if self.progress.global_step % self.training.log_every == 0:
                self.log_losses(bar)
            self.save_where_due()
        self.progress.unlogged = self.meter.collect(self.progress.global_step)

    def train_step(self, indices: np.ndarray) -> None:
        """Take one step on the examples at ``indices``, at its place in the schedules."""
        started, step = perf_counter(), self.progress.global_step
        set_learning_rate(self.stepper.optimizer, step, self.total_steps, self.training.warmup)
        stage = scheduled(self.stage, step, self.total_steps)
        self.meter.weights = stage.losses
        self.stepper.take_step(indices, stage, self.meter)
        redraw_features(self.stepper.trained, step, self.total_steps)
        self.progress.count_step(len(indices), perf_counter() - started)

    def log_losses(self, bar: tqdm) -> None:
        """Add the mean losses since the last line to the history; the speed goes to trackers and bar alone."""
        started, step = perf_counter(), self.progress.global_step
        factor = learning_rate_factor(step - 1, self.total_steps, self.training.warmup)
        line, count = self.meter.flush(step, self.stage.learning_rate * factor)
        rate = self.progress.add_line(line, count, perf_counter() - started)
        losses = {name: f"{line[name]:.3g}" for name in self.stage.losses}
        examples = self.inputs.examples
        if isinstance(examples, TextWindows):  # of a text, what counts is how much of it was read
            speed = {"tokens/s": f"{rate * examples.lengths.mean():,.0f}"}
        else:
            speed = {"examples/s": f"{rate:.0f}"}
        bar.set_postfix(losses | speed, refresh=False)
        self.log(line | {"examples_per_second": rate})

    def save_where_due(self) -> None:
        """Save a checkpoint at every ``checkpoint_every`` steps, and where a signal asks any of the processes to end.

        Raises:
            Interrupted: a signal did, after the checkpoint is saved, in all processes at the same step.
        """
        interrupted = highest(self.accelerator, self.signals.received)
        if interrupted or self.progress.global_step % self.training.checkpoint_every == 0:
            self.progress.unlogged = self.meter.collect(self.progress.global_step)
            self.save_progress()
        if interrupted:
            raise Interrupted(interrupted)

    def finish_epoch(self) -> None:
        """Score the epoch on the held-out part of train, and keep its weights if they are the best.

        A checkpoint follows unless they have taken too much of the time, since few examples are read hundreds of
        times; where a signal has come it always does.
        """
        self.stepper.collect(self.model)
        score, metrics = self.evaluate(self.model)
        is_best = self.progress.end_epoch(score, metrics)
        self.log({"step": self.progress.global_step} | {f"held_out_{name}": metrics[name] for name in metrics})
        if is_best and self.stage.keep_best_epoch:
            self.save_best_epoch()
        if self.stage.average_epochs > 1 and self.accelerator.is_main_process:
            keep_epoch(self.model.state_dict(), self.folder, self.progress.epoch - 1, self.stage.average_epochs)
        is_cheap = self.progress.checkpoint_seconds <= CHECKPOINT_SHARE * self.progress.seconds
        if highest(self.accelerator, is_cheap or self.signals.received):
            self.save_progress()

    def save_best_epoch(self) -> None:
        """Save the model's weights as those of the best epoch."""
        assert self.progress.best_epoch is not None
        if self.accelerator.is_main_process:
            keep_best(self.model.state_dict(), self.folder, self.progress.best_epoch)

    def save_progress(self) -> None:
        """Save a checkpoint, and what TensorBoard would keep in memory for two minutes."""
        started = perf_counter()
        flush_trackers(self.accelerator)
        save_checkpoint(self.accelerator, self.folder, dataclasses.asdict(self.progress))
        self.progress.checkpoint_seconds += perf_counter() - started

    def finish(self) -> None:
        """Leave the model with the weights that the stage ends with, and forget what only training needs."""
        self.stepper.collect(self.model)
        if self.stage.keep_best_epoch and self.progress.best_epoch is not None:
            self.model.load_state_dict(load_weights(best_path(self.folder, self.progress.best_epoch)))
        if self.stage.average_epochs > 1:
            weights = mean_of_epochs(self.folder, self.progress.epoch, self.stage.average_epochs)
            self.model.load_state_dict(weights)
        if self.label_scale is not None:
            self.label_scale.restore_head(self.model)

    def log(self, line: Mapping[str, float]) -> None:
        """Send one line to the trackers under the stage's name."""
        values = {f"{self.stage.name}/{name}": value for name, value in line.items() if name != "step"}
        log_figures(self.accelerator, values, int(line["step"]))


def phase_seed(seed: int, name: str) -> int:
    """Return a seed of its own for every phase, so that no phase depends on which ran before in this process."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])


def redraw_features(model: Any, global_step: int, total_steps: int) -> None:
    """Draw new random features where the student asks for it, but not in the last fifth of a stage."""
    config = model.config
    if getattr(config, "features", None) != "redrawn" or global_step > 0.8 * total_steps:
        return
    if (global_step + 1) % config.redraw_interval == 0:
        model.redraw_projections((global_step + 1) // config.redraw_interval)
