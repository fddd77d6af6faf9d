"""The Accelerator of a run: processes, precision and TensorBoard."""

import dataclasses
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)

from distill.config import Config
from distill.errors import UserError

WAIT = timedelta(hours=12)
"""How long processes wait for the main one, which alone tokenises and computes the teacher's outputs."""


def make_accelerator(config: Config) -> Accelerator:
    """Build the one Accelerator of a run from the launcher's settings and the configuration.

    Raises:
        UserError: the precision does not exist on this machine.
    """
    # Attention stages leave the classifier without a gradient.
    handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        backend = "nccl" if torch.cuda.is_available() else "gloo"  # DeepSpeed on CPU must be told
        handlers.append(InitProcessGroupKwargs(backend=backend, timeout=WAIT))
    run_dir = Path(config.run_dir or ".")
    accelerator = Accelerator(
        mixed_precision=config.training.mixed_precision,
        # As a plugin, because a number is overruled by what the launcher exports, even by DeepSpeed's "auto".
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.training.gradient_accumulation),
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(run_dir), logging_dir=str(run_dir)),
        kwargs_handlers=handlers,
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("mixed precision fp16 needs a GPU and none is visible; use bf16 or no")
    return accelerator


def start_trackers(accelerator: Accelerator, config: Config) -> None:
    """Open TensorBoard in ``<run_dir>/tensorboard`` with the flattened configuration as hparams."""
    accelerator.init_trackers("tensorboard", config=flatten(dataclasses.asdict(config)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration to dotted keys with scalar values: TensorBoard's hparams refuse lists and None."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat


def autocast_dtype(accelerator: Accelerator) -> torch.dtype | None:
    """Return the dtype in which inference may run during training, None for full precision."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
