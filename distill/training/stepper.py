"""One optimizer step: a batch through the model and the losses, shared by processes and accumulation steps."""

import copy

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from distill.config.schema import StageConfig
from distill.data.batching import collate
from distill.data.labels import HIDDEN
from distill.data.text_windows import TextWindows
from distill.data.token_predictions import PLACES, labels_at, places_to_predict
from distill.objectives.capture_plan import StageModel
from distill.objectives.stage_losses import compute_losses
from distill.training.accelerator import collect_weights, prepare, uses_deepspeed
from distill.training.context import StageInputs, TrainingContext
from distill.training.loss_meter import LossMeter
from distill.training.optimizer import parameter_groups, set_trainable
from distill.training.summary_fitting import starting_maps
from distill.training.word_rows import trained_rows
from distill.utils.errors import UserError


class Stepper:
    """Takes the optimizer steps of a stage.

    Args:
        model: trained in place, but under DeepSpeed, which takes parameters apart for good, a copy of it.

    Attributes:
        trained: the model whose parameters the optimizer moves, without what `accelerate` wraps around it.
    """

    def __init__(
        self, context: TrainingContext, model: PreTrainedModel, stage: StageConfig, inputs: StageInputs
    ) -> None:
        self.accelerator, self.training, self.inputs = context.accelerator, context.training, inputs
        self.label_scale, self.class_weights = context.label_scale, context.class_weights
        self.examples = inputs.examples
        self.trained = trained = copy.deepcopy(model) if uses_deepspeed(self.accelerator) else model
        set_trainable(trained, stage)
        groups = parameter_groups(trained, stage, self.training.weight_decay)
        # DeepSpeed looks for the parameters of a model in the model.
        self.rows = None if uses_deepspeed(self.accelerator) else trained_rows(trained, inputs.examples)
        if self.rows is not None:
            self.rows.stand_in(groups)
        maps = starting_maps(trained, inputs)
        if maps:
            learned = [parameter for each in maps for parameter in each.parameters()]
            rate = stage.learning_rate
            groups.append({"params": learned, "lr": rate, "initial_lr": rate, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, fused=self.accelerator.device.type in ("cpu", "cuda"))
        stage_model = StageModel(trained, inputs.plan, maps, self.rows)
        self.wrapped: nn.Module
        self.optimizer: torch.optim.Optimizer
        self.wrapped, self.optimizer = prepare(
            self.accelerator, self.training, stage_model, optimizer, stage.batch_size
        )

    def collect(self, model: PreTrainedModel) -> None:
        """Bring ``model``, which the stage is to train, up to date with what its optimizer moves."""
        if self.rows is not None:
            self.rows.write_back()
        collect_weights(self.trained, model)

    def release(self) -> None:
        """Leave the model as whoever else trains it expects it."""
        if self.rows is not None:
            self.rows.release()

    def start_pass(self, number: int) -> None:
        """Draw what every pass over the examples draws anew: which tokens of a text are masked."""
        examples = self.inputs.examples
        self.examples = examples.in_pass(number) if isinstance(examples, TextWindows) else examples

    def take_step(self, indices: np.ndarray, stage: StageConfig, meter: LossMeter) -> None:
        """Take one optimizer step on the examples at ``indices``, however many processes share them.

        Losses are sums over examples divided by the size of the whole batch, so accumulation steps and processes
        give the gradient of the same mean.

        Args:
            stage: with the loss weights and the temperature of this step.
            meter: gets the sum of every loss.

        Raises:
            UserError: no loss depends on what the stage trains.
        """
        own = indices[self.accelerator.process_index :: self.accelerator.num_processes]
        parts = np.array_split(own, self.training.gradient_accumulation)
        # Both accelerate and DDP average over parts and processes; a sum over examples is wanted.
        scale = self.accelerator.num_processes * len(parts) / len(indices)
        weights = self._batch_weights(indices)
        for part in parts:
            counted = len(part) > 0
            # Every process must take part in every step.
            self._accumulate(part if counted else indices[:1], stage, scale, counted, meter, weights)

    def _batch_weights(self, indices: np.ndarray) -> torch.Tensor | None:
        """Return the class weights (C,) over their mean in a batch, however it will be cut; None where there are none.

        The mean loss over the labelled examples is then what torch calls the weighted mean, sum(w l) / sum(w).
        """
        if self.class_weights is None:
            return None
        labels = self.examples.labels[indices]
        mean = self.class_weights[labels[labels != HIDDEN]].mean() if (labels != HIDDEN).any() else 1.0
        weights = self.class_weights / (mean or 1.0)
        return torch.from_numpy(weights.astype(np.float32)).to(self.accelerator.device)

    def _accumulate(
        self,
        part: np.ndarray,
        stage: StageConfig,
        scale: float,
        counted: bool,
        meter: LossMeter,
        class_weights: torch.Tensor | None,
    ) -> None:
        """Add the gradient of one part of a batch; with the last part the optimizer moves."""
        inputs, labels = collate(self.examples, part, self.accelerator.device)
        if isinstance(self.examples, TextWindows):
            places = places_to_predict(labels, reads_logits=stage.reads_logits)
            labels = labels_at(labels, places)
            if places is not None:
                inputs[PLACES] = places
        source = self.inputs.teacher_outputs
        teacher = source.batch(part, inputs) if source is not None else {}
        if self.label_scale is not None:
            labels = self.label_scale.standardise(labels)
            if teacher:
                teacher["logits"] = self.label_scale.standardise(teacher["logits"])
        with self.accelerator.accumulate(self.wrapped):
            student = self.wrapped(inputs, teacher.get("layer_input"))
            head_size = source.head_size if source is not None else 1
            how = class_weights, self.training.label_smoothing
            values = compute_losses(stage, student, teacher, inputs | {"labels": labels}, head_size, *how)
            sums = {name: value.sum() * counted for name, value in values.items()}
            loss = torch.stack([stage.losses[name] * value for name, value in sums.items()]).sum()
            if not loss.requires_grad:
                raise UserError(f"stages.{stage.name}.train is {stage.train}: no loss depends on that; train encoder")
            self.accelerator.backward(loss * scale)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.training.max_gradient_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        meter.add(sums, len(part) * counted)
