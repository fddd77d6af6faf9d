"""The Accelerator of a run: processes, precision and DeepSpeed."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    gather_object,
    is_deepspeed_available,
)
from torch import nn
from transformers.integrations import unset_hf_deepspeed_config

from distill.config.schema import Config, TrainingConfig
from distill.training.launcher import Sharding, read_launcher, training_precision
from distill.utils.errors import SharedError, UserError

EXCHANGE = timedelta(minutes=10)
"""How long processes that train together wait for each other: a machine that vanished is noticed by then."""
WAIT = timedelta(hours=12)
"""How long processes wait for the main one, which alone downloads, tokenises and computes the teacher's outputs."""

Result = TypeVar("Result")


class RunAccelerator(Accelerator):
    """accelerate's Accelerator, with a second group of all processes, on which they wait for the main one."""

    patient_group: Any = None
    """None where there is one process."""


def make_accelerator(config: Config) -> RunAccelerator:
    """Build the one Accelerator of a run from the launcher's settings and the configuration."""
    launcher = read_launcher()
    # Attention stages leave the classifier without a gradient.
    handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    if launcher.several or launcher.deepspeed:
        backend = "nccl" if launcher.gpus else "gloo"  # DeepSpeed on CPU must be told
        handlers.append(InitProcessGroupKwargs(backend=backend, timeout=EXCHANGE))
        import_before_groups()
    run_dir = Path(config.run_dir or ".")
    accelerator = RunAccelerator(
        # Left to itself, accelerate takes several CPU processes for so many runs that know nothing of each other.
        cpu=launcher.several and not launcher.deepspeed and not launcher.gpus,
        mixed_precision=training_precision(config, launcher),
        # As a plugin, because a number is overruled by what the launcher exports, even by DeepSpeed's "auto".
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.training.gradient_accumulation),
        log_with=list(config.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(run_dir), logging_dir=str(run_dir)),
        kwargs_handlers=handlers,
    )
    if launcher.deepspeed:
        # Under ZeRO-3 transformers would load every model in shards. Ours are whole; what trains is a sharded copy.
        unset_hf_deepspeed_config()
    if launcher.several:
        accelerator.patient_group = make_patient_group()
    return accelerator


def check_same_precision(accelerator: Accelerator) -> None:
    """Refuse processes on machines of which each has chosen another precision; every process must call this.

    Raises:
        UserError: on every process.
    """
    if accelerator.num_processes == 1:
        return
    chosen = sorted(set(gather_object([str(accelerator.mixed_precision)])))
    if len(chosen) > 1:
        raise UserError(
            f"training.mixed_precision auto: the machines of this run would train in {' and '.join(chosen)}; "
            "give one for all, no or bf16"
        )


def import_before_groups() -> None:
    """Import the modules whose functions take the process group of the time of their import as a default argument.

    The first optimizer and accelerate import them later on, and would so hold the group until the interpreter ends.
    """
    import torch.distributed.nn.functional  # noqa: F401

    if is_deepspeed_available():
        import deepspeed.comm  # noqa: F401


def end_training(accelerator: RunAccelerator) -> None:
    """Close the trackers and the process groups.

    Nothing may hold a group any longer: gloo's threads would abort the interpreter when it ends, after all was done.
    """
    accelerator.patient_group = None
    accelerator.end_training()


def make_patient_group() -> Any:
    """Make a second group of all processes, on which they wait for the main one for as long as it takes."""
    group = torch.distributed.new_group(backend="gloo", timeout=WAIT)
    # A connection that was never used is made at first use: a process that is dead by then would be waited for.
    torch.distributed.barrier(group)
    return group


def on_main_process(accelerator: RunAccelerator, work: Callable[[], Result]) -> Result:
    """Do ``work`` on the main process alone while the others wait, and hand all of them the result.

    Raises:
        UserError: on every process, if ``work`` raised it.
    """
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except UserError as error:
            outcome[1] = str(error)
    if accelerator.num_processes > 1:
        group = accelerator.patient_group
        torch.distributed.broadcast_object_list(outcome, src=0, group=group, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise (UserError if accelerator.is_main_process else SharedError)(outcome[1])
    return outcome[0]


def main_process_first(accelerator: RunAccelerator, work: Callable[[], Result]) -> Result:
    """Do ``work`` on every process, on the main one first: the others find what it downloaded.

    Raises:
        UserError: on every process, if it was raised on the main one.
    """
    results: list[Result] = []
    on_main_process(accelerator, lambda: results.append(work()))
    return results[0] if accelerator.is_main_process else work()


def highest(accelerator: Accelerator, value: int) -> int:
    """Return the highest ``value`` of all processes; where there are several, every one must call this."""
    if accelerator.num_processes == 1:
        return value
    return int(accelerator.gather(torch.tensor([int(value)], device=accelerator.device)).max())


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
        if accelerator.mixed_precision == "bf16":
            # DeepSpeed's own bf16 casts weights, normalisation and loss, too; autocast is what all others get.
            accelerator.state.deepspeed_plugin.deepspeed_config |= {
                "bf16": {"enabled": False},
                "torch_autocast": {"enabled": True, "dtype": "bfloat16"},
            }
        parts = accelerator.num_processes * training.gradient_accumulation
        micro_batch = max(1, batch_size // parts)
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": micro_batch,
            "train_batch_size": micro_batch * parts,
            "gradient_accumulation_steps": training.gradient_accumulation,
            "gradient_clipping": training.max_gradient_norm,
            # torch's fused Adam runs where the states are; DeepSpeed's own would have to be compiled for offloading.
            "zero_force_ds_cpu_optimizer": False,
        }
        # DeepSpeed's own bucket for gradients has room for 500 million, whatever the size of the model.
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        zero = accelerator.state.deepspeed_plugin.deepspeed_config.setdefault("zero_optimization", {})
        zero["reduce_bucket_size"] = trained
    return accelerator.prepare(model, optimizer)


def uses_deepspeed(accelerator: Accelerator) -> bool:
    """Tell whether DeepSpeed trains.

    It takes the parameters of a module apart for good (ZeRO-3 leaves each process a shard), so it gets a copy of the
    model, from which :func:`collect_weights` brings the weights back.
    """
    return accelerator.state.deepspeed_plugin is not None


def current_sharding(accelerator: Accelerator) -> Sharding:
    """Return how this run shares out its training."""
    plugin = accelerator.state.deepspeed_plugin
    half = accelerator.mixed_precision != "no"
    if plugin is None:
        return Sharding(accelerator.num_processes, half=half)
    offload = plugin.deepspeed_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device")
    return Sharding(accelerator.num_processes, plugin.zero_stage, offload in ("cpu", "nvme"), half)


def collect_weights(trained: nn.Module, model: nn.Module) -> None:
    """Bring ``model`` up to date, on every process, where a copy of it is ``trained``."""
    if trained is model:
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(list(trained.parameters())):
        model.load_state_dict(trained.state_dict())
