"""Where a stage stands, and how it moves on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, get_type_hints

import numpy as np

from distill.utils.errors import UserError
from distill.utils.record_json import read_value

EARLIER = {"is_score_mean": False, "is_standardised": False}
"""Fields that the checkpoints of earlier versions lack, and what these meant."""


def epoch_score(metrics: Mapping[str, float]) -> float:
    """Return what epochs are chosen by: the mean of a task's metrics on the held-out part of train.

    It tells more epochs apart than the main metric: where one class has most of the examples, accuracy prefers the
    epoch that answers with nothing else.
    """
    return float(np.mean(list(metrics.values())))


def state_problem(saved: Mapping[str, Any]) -> str | None:
    """Say what of a checkpoint's state neither this version nor an earlier one has written, or return None."""
    types = get_type_hints(Progress)
    if unknown := saved.keys() - types.keys():
        return f"{min(unknown)} is unknown"
    if missing := types.keys() - saved.keys() - EARLIER.keys():
        return f"{min(missing)} is missing"
    try:
        for name, value in saved.items():
            read_value(types[name], value, "state", name)
    except UserError as error:
        return str(error).removeprefix("state: ")
    epochs = len(saved["held_out"])
    if not 0 <= (saved["best_epoch"] or 0) <= epochs:
        return f"best_epoch is {saved['best_epoch']} of {epochs}"
    return None


@dataclass
class Progress:
    """Where a stage stands; with the checkpoint beside it, everything that resuming needs."""

    epoch: int = 0
    step: int = 0
    """Taken in this epoch."""
    global_step: int = 0
    examples: int = 0
    """Seen in steps, those of every epoch counted."""
    seconds: float = 0.0
    """Spent in steps."""
    checkpoint_seconds: float = 0.0
    """Spent in saving checkpoints."""
    best_epoch: int | None = None
    best_score: float = -math.inf
    is_score_mean: bool = True
    """Whether ``best_score`` is an `epoch_score`; in checkpoints of earlier versions it was the main metric."""
    is_standardised: bool = True
    """Whether a regression's head was trained in standard units; in checkpoints of earlier versions in label units."""
    held_out: list[dict[str, float]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    unlogged: list[float] = field(default_factory=list)
    """Sums of the losses since the last line of the history."""
    logged_seconds: float = 0.0
    """``seconds`` at that line."""

    def count_step(self, num_examples: int, seconds: float) -> None:
        """Count a step that was taken."""
        self.step += 1
        self.global_step += 1
        self.examples += num_examples
        self.seconds += seconds

    def add_line(self, line: dict[str, float], num_examples: int, seconds: float) -> float:
        """Add a line to the history and return the examples per second since the last one.

        A history without times is the same in a run that was killed and in one that was not.

        Args:
            num_examples: that the line is the mean over.
            seconds: that were waited for the line's numbers; the device finishes its queue of steps meanwhile.
        """
        self.seconds += seconds
        rate = num_examples / (self.seconds - self.logged_seconds)
        self.history.append(line)
        self.logged_seconds = self.seconds
        return rate

    def start_from(self, score: float) -> None:
        """Take what the stage starts from, epoch 0, for its best until an epoch is better."""
        self.best_epoch, self.best_score = 0, score

    @classmethod
    def from_checkpoint(cls, saved: Mapping[str, Any]) -> Self:
        """Return the progress that a checkpoint holds, its best epoch scored by today's rule."""
        progress = cls(**{**EARLIER, **saved})
        if progress.best_epoch and not progress.is_score_mean:
            progress.best_score = epoch_score(progress.held_out[progress.best_epoch - 1])
        progress.is_score_mean = True
        return progress

    def end_epoch(self, score: float, metrics: Mapping[str, float]) -> bool:
        """Go on to the next epoch and tell whether this one has the best held-out score so far."""
        self.epoch, self.step = self.epoch + 1, 0
        self.held_out.append(dict(metrics))
        is_best = self.best_epoch is None or score > self.best_score
        if is_best:
            self.best_epoch, self.best_score = self.epoch, score
        return is_best

    def is_out_of_patience(self, patience: int | None) -> bool:
        """Tell whether the last ``patience`` epochs brought no better held-out score."""
        return patience is not None and self.best_epoch is not None and self.epoch - self.best_epoch >= patience
