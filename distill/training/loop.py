"""The one loop: teacher fine-tuning, every distillation stage and the baseline run through it."""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from distill.config.schema import StageConfig, TrainingConfig
from distill.data.batching import TokenizedExamples, collate, length_grouped_batches
from distill.objectives.capture_plan import CapturePlan, StageModel
from distill.objectives.stage_losses import compute_losses
from distill.training.accelerator import collect_weights, flush_trackers, highest, prepare, uses_deepspeed
from distill.training.checkpoints import (
    best_path,
    keep_epoch,
    load_checkpoint,
    mean_of_epochs,
    save_checkpoint,
    save_weights,
)
from distill.training.dropout import set_dropout
from distill.training.loss_meter import LossMeter
from distill.training.optimizer import parameter_groups, set_trainable
from distill.training.schedules import learning_rate_factor, scheduled, set_learning_rate
from distill.utils.clock import now
from distill.utils.errors import UserError
from distill.utils.interrupts import Interrupted, postponed, received
from distill.utils.progress import progress_bar


class TeacherOutputs(Protocol):
    """What the loop needs of the teacher: its outputs for some examples, padded like the batch."""

    num_heads: int

    def batch(self, indices: np.ndarray, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return captured kinds and logits for the examples at ``indices``."""


@dataclass
class Progress:
    """Where a stage stands; with the checkpoint beside it, everything that resuming needs."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    examples: int = 0
    """Seen in steps, those of every epoch counted."""
    seconds: float = 0.0
    """Spent in steps."""
    checkpoint_seconds: float = 0.0
    """Spent in saving checkpoints."""
    best_epoch: int | None = None
    best_score: float = -math.inf
    held_out: list[dict[str, float]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    unlogged: list[float] = field(default_factory=list)
    """Sums of the losses since the last line of the history."""
    logged_seconds: float = 0.0
    """``seconds`` at that line."""


@dataclass(frozen=True)
class TrainingContext:
    """What is the same for every stage of a run."""

    accelerator: Accelerator
    training: TrainingConfig
    seed: int


def phase_seed(seed: int, name: str) -> int:
    """Return a seed of its own for every phase, so that no phase depends on which ran before in this process."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])


def train(
    run: TrainingContext,
    model: PreTrainedModel,
    stage: StageConfig,
    plan: CapturePlan,
    examples: TokenizedExamples,
    folder: Path,
    evaluate: Callable[[nn.Module], tuple[float, dict[str, float]]],
    teacher_outputs: TeacherOutputs | None = None,
) -> Progress:
    """Train ``model`` in place through one stage, resuming from ``folder`` where it stopped.

    Args:
        evaluate: given the model, its score (higher is better) and its metrics on the held-out part of train.
        teacher_outputs: needed unless the only loss is ``labels``.

    Returns:
        The final progress with the loss history; ``model`` carries the last or the best epoch's weights, or a mean.

    Raises:
        UserError: a loss stops being finite, or none depends on what the stage trains.
        Interrupted: a signal came; the running step was finished and a checkpoint saved.
    """
    accelerator = run.accelerator
    set_seed(phase_seed(run.seed, stage.name) % 2**32, device_specific=True)
    set_dropout(model, stage.dropout)
    trained = copy.deepcopy(model) if uses_deepspeed(accelerator) else model
    set_trainable(trained, stage)
    groups = parameter_groups(trained, stage, run.training.weight_decay)
    optimizer = torch.optim.AdamW(groups, fused=accelerator.device.type in ("cpu", "cuda"))
    wrapped, optimizer = prepare(accelerator, run.training, StageModel(trained, plan), optimizer, stage.batch_size)
    saved = load_checkpoint(accelerator, folder)
    progress = Progress(**saved) if saved else Progress()
    # Where labels alone teach, the head starts untrained: what it scores is luck.
    if saved is None and stage.keep_best_epoch and teacher_outputs is not None:
        score_start(accelerator, model, progress, folder, evaluate)
    steps_per_epoch = math.ceil(len(examples) / stage.batch_size)
    total_steps = math.ceil(steps_per_epoch * stage.epochs)
    meter = LossMeter(accelerator, stage.name, stage.losses, progress.unlogged)
    counted: dict[str, Any] = {"total": total_steps, "initial": progress.global_step}
    hidden = not accelerator.is_main_process
    with progress_bar(name=stage.name, unit="step", disable=hidden, **counted) as bar, postponed():
        # A stage that was stopped behind its last step still has that epoch to finish.
        while (progress.global_step < total_steps or progress.step) and not out_of_patience(progress, stage.patience):
            wrapped.train()
            epoch_batches = length_grouped_batches(
                examples.lengths, stage.batch_size, seed=phase_seed(run.seed, stage.name), epoch=progress.epoch
            )
            left = total_steps - progress.global_step  # of half an epoch the rest is not seen
            for indices in epoch_batches[progress.step :][:left]:
                started = now()
                set_learning_rate(optimizer, progress.global_step, total_steps, run.training.warmup)
                current = scheduled(stage, progress.global_step, total_steps)
                meter.weights = current.losses
                train_step(run, wrapped, optimizer, current, examples, indices, teacher_outputs, meter)
                redraw_features(accelerator.unwrap_model(wrapped).model, progress.global_step, total_steps)
                progress.step += 1
                progress.global_step += 1
                progress.examples += len(indices)
                bar.update()
                progress.seconds += now() - started
                if progress.global_step % run.training.log_every == 0:
                    write_line(run, stage, progress, total_steps, meter, bar)
                save_where_due(run, progress, meter, folder)
            progress.unlogged = meter.collect(progress.global_step)
            progress.epoch, progress.step = progress.epoch + 1, 0
            finish_epoch(accelerator, wrapped, model, stage, progress, folder, evaluate)
        if progress.global_step % run.training.log_every:
            write_line(run, stage, progress, total_steps, meter, bar)
    collect_weights(accelerator, wrapped, model)
    if stage.keep_best_epoch and progress.best_epoch is not None:
        model.load_state_dict(load_file(best_path(folder, progress.best_epoch)))
    if stage.average_epochs > 1:
        model.load_state_dict(mean_of_epochs(folder, progress.epoch, stage.average_epochs))
    release(accelerator)
    return progress


def train_step(
    run: TrainingContext,
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    stage: StageConfig,
    examples: TokenizedExamples,
    indices: np.ndarray,
    teacher_outputs: TeacherOutputs | None,
    meter: LossMeter,
) -> None:
    """Take one optimizer step on the examples at ``indices``, however many processes share them.

    Losses are sums over examples divided by the size of the whole batch, so accumulation steps and processes
    give the gradient of the same mean.
    """
    accelerator = run.accelerator
    own = indices[accelerator.process_index :: accelerator.num_processes]
    parts = np.array_split(own, run.training.gradient_accumulation)
    # Both accelerate and DDP average over parts and processes; a sum over examples is wanted.
    scale = accelerator.num_processes * len(parts) / len(indices)
    for part in parts:
        counted = len(part) > 0
        part = part if counted else indices[:1]  # every process must take part in every step
        inputs = collate(examples, part, accelerator.device)
        labels = inputs.pop("labels")
        inputs.pop("ids")
        teacher = teacher_outputs.batch(part, inputs) if teacher_outputs is not None else {}
        with accelerator.accumulate(wrapped):
            student = wrapped(inputs, teacher.get("layer_input"))
            num_heads = teacher_outputs.num_heads if teacher_outputs is not None else 1
            values = compute_losses(stage, student, teacher, inputs | {"labels": labels}, num_heads)
            sums = {name: value.sum() * counted for name, value in values.items()}
            loss = torch.stack([stage.losses[name] * value for name, value in sums.items()]).sum()
            if not loss.requires_grad:
                raise UserError(f"stages.{stage.name}.train is {stage.train}: no loss depends on that; train encoder")
            accelerator.backward(loss * scale)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(wrapped.parameters(), run.training.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
        meter.add(sums, len(part) * counted)


def write_line(
    run: TrainingContext, stage: StageConfig, progress: Progress, total_steps: int, meter: LossMeter, bar: tqdm
) -> None:
    """Add the mean losses since the last line to the history; the speed goes to TensorBoard and the bar alone.

    A history without times is the same in a run that was killed and in one that was not.
    """
    started = now()
    factor = learning_rate_factor(progress.global_step - 1, total_steps, run.training.warmup)
    line, count = meter.flush(progress.global_step, stage.learning_rate * factor)
    progress.seconds += now() - started  # the device finishes its queue here
    rate = count / (progress.seconds - progress.logged_seconds)
    progress.history.append(line)
    progress.logged_seconds = progress.seconds
    losses = {name: f"{line[name]:.3g}" for name in stage.losses}
    bar.set_postfix(losses | {"examples/s": f"{rate:.0f}"}, refresh=False)
    log(run.accelerator, stage.name, line | {"examples_per_second": rate})


def save_where_due(run: TrainingContext, progress: Progress, meter: LossMeter, folder: Path) -> None:
    """Save a checkpoint at every ``checkpoint_every`` steps, and where a signal asks any of the processes to end.

    Raises:
        Interrupted: a signal did, after the checkpoint is saved, in all processes at the same step.
    """
    interrupted = highest(run.accelerator, received())
    if interrupted or progress.global_step % run.training.checkpoint_every == 0:
        progress.unlogged = meter.collect(progress.global_step)
        save_progress(run.accelerator, progress, folder)
    if interrupted:
        raise Interrupted(interrupted)


def save_progress(accelerator: Accelerator, progress: Progress, folder: Path) -> None:
    """Save a checkpoint, and what TensorBoard would keep in memory for two minutes."""
    started = now()
    flush_trackers(accelerator)
    save_checkpoint(accelerator, folder, dataclasses.asdict(progress))
    progress.checkpoint_seconds += now() - started


def score_start(
    accelerator: Accelerator,
    model: PreTrainedModel,
    progress: Progress,
    folder: Path,
    evaluate: Callable[[nn.Module], tuple[float, dict[str, float]]],
) -> None:
    """Take the weights that a stage starts from, epoch 0, for its best until an epoch is better."""
    progress.best_epoch, (progress.best_score, _) = 0, evaluate(model)
    if accelerator.is_main_process:
        save_weights(model.state_dict(), best_path(folder, 0))


def finish_epoch(
    accelerator: Accelerator,
    wrapped: nn.Module,
    model: PreTrainedModel,
    stage: StageConfig,
    progress: Progress,
    folder: Path,
    evaluate: Callable[[nn.Module], tuple[float, dict[str, float]]],
) -> None:
    """Score the epoch on the held-out part of train, keep its weights if they are the best, save a checkpoint."""
    collect_weights(accelerator, wrapped, model)
    score, metrics = evaluate(model)
    progress.held_out.append(metrics)
    log(accelerator, stage.name, {"step": progress.global_step} | {f"held_out_{k}": v for k, v in metrics.items()})
    if progress.best_epoch is None or score > progress.best_score:
        progress.best_epoch, progress.best_score = progress.epoch, score
        if stage.keep_best_epoch and accelerator.is_main_process:
            save_weights(model.state_dict(), best_path(folder, progress.epoch))
    if stage.average_epochs > 1 and accelerator.is_main_process:
        keep_epoch(model.state_dict(), folder, progress.epoch - 1, stage.average_epochs)
    save_progress(accelerator, progress, folder)


def out_of_patience(progress: Progress, patience: int | None) -> bool:
    """Tell whether the last ``patience`` epochs brought no better held-out score."""
    return (
        patience is not None and progress.best_epoch is not None and progress.epoch - progress.best_epoch >= patience
    )


def redraw_features(model: Any, global_step: int, total_steps: int) -> None:
    """Draw new random features where the student asks for it, but not in the last fifth of a stage."""
    config = model.config
    if getattr(config, "features", None) != "redrawn" or global_step > 0.8 * total_steps:
        return
    if (global_step + 1) % config.redraw_interval == 0:
        model.redraw_projections((global_step + 1) // config.redraw_interval)


def release(accelerator: Accelerator) -> None:
    """Forget the stage's model and optimizer, so that the next stage's checkpoint holds only its own."""
    accelerator.free_memory()


def log(accelerator: Accelerator, stage: str, line: Mapping[str, float]) -> None:
    """Send one line to TensorBoard under the stage's name."""
    values = {f"{stage}/{name}": value for name, value in line.items() if name != "step"}
    accelerator.log(values, step=int(line["step"]))
