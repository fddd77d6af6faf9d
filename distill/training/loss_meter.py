"""Mean losses between two lines of the history, the same whether or not a kill lies in between."""

import math
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from distill.utils.errors import DivergedError


class LossMeter:
    """Sums of losses over examples, on the device; fetched only for a line of the history or a checkpoint.

    Args:
        weights: loss name to weight; may be set anew, for a line says what it was at its end.
    """

    def __init__(self, accelerator: Accelerator, stage_name: str, weights: Mapping[str, float]) -> None:
        self.accelerator, self.stage_name, self.weights = accelerator, stage_name, weights
        self.start_from([0.0] * (len(weights) + 1))

    def start_from(self, totals: Sequence[float]) -> None:
        """Start over from what :meth:`collect` returned, which from then on is the main process's own."""
        own = totals if self.accelerator.is_main_process else [0.0] * len(totals)
        self.sums = torch.tensor(own[:-1], device=self.accelerator.device)
        self.count = int(own[-1])

    def add(self, sums: Mapping[str, Tensor], count: int) -> None:
        """Add the sum of every loss over ``count`` examples."""
        self.sums += torch.stack([sums[name].detach() for name in self.weights])
        self.count += count

    def collect(self, global_step: int) -> list[float]:
        """Return the sums of all processes and, last, their number of examples; every process must call this.

        The running sums become these very numbers, so that a resumed run adds in the order of an undisturbed one.

        Raises:
            DivergedError: a loss is not finite.
        """
        counts = torch.tensor([float(self.count)], device=self.accelerator.device)
        totals = self.accelerator.reduce(torch.cat([self.sums, counts])).tolist()
        if not all(math.isfinite(total) for total in totals):
            raise DivergedError(
                f"stage {self.stage_name}: loss is not finite at step {global_step}; "
                "lower its learning_rate or use training.mixed_precision no"
            )
        self.start_from(totals)
        return totals

    def flush(self, global_step: int, learning_rate: float) -> tuple[dict[str, float], int]:
        """Return mean raw and weighted losses since the last line, over how many examples, and start over."""
        *totals, count = self.collect(global_step)
        line: dict[str, float] = {"step": global_step, "learning_rate": learning_rate}
        for (name, weight), total in zip(self.weights.items(), totals, strict=True):
            line[name] = total / count
            line[f"{name}_weighted"] = weight * line[name]
        self.start_from([0.0] * (len(totals) + 1))
        return line, int(count)
