"""The Accelerator of a run: processes, precision, DeepSpeed and TensorBoard."""

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
    parse_flag_from_env,
)
from torch import nn
from transformers.integrations import unset_hf_deepspeed_config

from distill.config import Config, TrainingConfig
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
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    on_gpu = torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")
    if several or deepspeed:
        backend = "nccl" if on_gpu else "gloo"  # DeepSpeed on CPU must be told
        handlers.append(InitProcessGroupKwargs(backend=backend, timeout=WAIT))
    run_dir = Path(config.run_dir or ".")
    accelerator = Accelerator(
        # Left to itself, accelerate takes several CPU processes for so many runs that know nothing of each other.
        cpu=several and not deepspeed and not on_gpu,
        mixed_precision=config.training.mixed_precision,
        # As a plugin, because a number is overruled by what the launcher exports, even by DeepSpeed's "auto".
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.training.gradient_accumulation),
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(run_dir), logging_dir=str(run_dir)),
        kwargs_handlers=handlers,
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("mixed precision fp16 needs a GPU and none is visible; use bf16 or no")
    if deepspeed:
        # Under ZeRO-3 transformers would load every model in shards. Ours are whole; what trains is a sharded copy.
        unset_hf_deepspeed_config()
    return accelerator


def start_trackers(accelerator: Accelerator, config: Config) -> None:
    """Open TensorBoard in ``<run_dir>/tensorboard`` with the flattened configuration as hparams."""
    accelerator.init_trackers("tensorboard", config=flatten(dataclasses.asdict(config)))


def flush_trackers(accelerator: Accelerator) -> None:
    """Write out what TensorBoard still keeps in memory."""
    for tracker in accelerator.trackers:
        tracker.tracker.flush()


def highest(accelerator: Accelerator, value: int) -> int:
    """Return the highest ``value`` of all processes; where there are several, every one must call this."""
    if accelerator.num_processes == 1:
        return value
    return int(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())


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


def prepare(
    accelerator: Accelerator,
    training: TrainingConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
) -> Any:
    """Hand model and optimizer to the launcher's backend.

    DeepSpeed clips gradients itself, and wants to know the batch, having no data loader to ask.
    """
    if uses_deepspeed(accelerator):
        parts = accelerator.num_processes * training.gradient_accumulation
        micro_batch = max(1, batch_size // parts)
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": micro_batch,
            "train_batch_size": micro_batch * parts,
            "gradient_accumulation_steps": training.gradient_accumulation,
            "gradient_clipping": training.max_gradient_norm,
        }
    return accelerator.prepare(model, optimizer)


def uses_deepspeed(accelerator: Accelerator) -> bool:
    """Tell whether DeepSpeed trains.

    It takes the parameters of a module apart for good (ZeRO-3 leaves each process a shard), so it gets a copy of the
    model, from which :func:`collect_weights` brings the weights back.
    """
    return accelerator.state.deepspeed_plugin is not None


def collect_weights(accelerator: Accelerator, wrapped: nn.Module, model: nn.Module) -> None:
    """Bring ``model`` up to date, on every process, where a copy of it is trained."""
    source = accelerator.unwrap_model(wrapped).model
    if source is model:
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(list(source.parameters())):
        model.load_state_dict(source.state_dict())
