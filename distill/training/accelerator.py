"""The Accelerator of a run: processes, precision, DeepSpeed and TensorBoard."""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping
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

from distill.config.schema import PRECISIONS, Config, TrainingConfig
from distill.training.precision import resolve_precision
from distill.utils.errors import SharedError, UserError, choices_hint

EXCHANGE = timedelta(minutes=10)
"""How long processes that train together wait for each other: a machine that vanished is noticed by then."""
WAIT = timedelta(hours=12)
"""How long processes wait for the main one, which alone downloads, tokenises and computes the teacher's outputs."""

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Sharding:
    """How training is shared out among processes."""

    processes: int = 1
    zero_stage: int | None = None
    """2 or 3 under DeepSpeed, None without."""
    offload: bool = False
    """DeepSpeed keeps optimizer states in the machine's memory."""
    half: bool = False
    """Mixed precision, which under DeepSpeed makes the engine's weights half precision."""

    @property
    def name(self) -> str:
        if self.zero_stage is None:
            return "without DeepSpeed"
        return f"ZeRO-{self.zero_stage}" + (", offloaded" if self.offload else "")


@dataclasses.dataclass(frozen=True)
class Launcher:
    """What the launcher exported, known before any process has met the others."""

    processes: int
    local_processes: int
    """Those on this machine."""
    gpus: int
    """GPUs that a process of this machine sees; 0 where the run is to stay on the CPU."""
    deepspeed: bool
    unsupported: str | None
    """Another way to share out a model, which the loop was not written for."""
    mixed_precision: str | None
    gradient_accumulation: str | None

    @property
    def several(self) -> bool:
        return self.processes > 1


def check_variables(environment: Mapping[str, str]) -> None:
    """Refuse what torch and accelerate would fail on far from here; UserError names the variable."""
    way_out = "unset it, or start with accelerate launch or torchrun"
    numbers = {"WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0, "MASTER_PORT": 1}
    for name, lowest in numbers.items():
        value = environment.get(name, str(lowest))
        # accelerate launch says -1 for the rank of a process that is alone
        if not re.fullmatch(r"-1|\d+", value) or (value != "-1" and int(value) < lowest):
            raise UserError(f"{name} is {value!r} in the environment, not a whole number from {lowest} on; {way_out}")
    processes = int(environment.get("WORLD_SIZE", "1"))
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if processes > 1 else ():
        if name not in environment:
            raise UserError(f"WORLD_SIZE is {processes} in the environment but {name} is missing; {way_out}")
    if processes > 1 and int(environment["RANK"]) >= processes:
        raise UserError(f"RANK is {environment['RANK']} in the environment but WORLD_SIZE is {processes}; {way_out}")
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in PRECISIONS:
        raise UserError(
            f"ACCELERATE_MIXED_PRECISION is {precision!r} in the environment: {choices_hint(precision, PRECISIONS)}"
        )


def read_launcher(environment: Mapping[str, str] = os.environ) -> Launcher:
    """Read what accelerate or torchrun exported for this process.

    Raises:
        UserError: a variable that no launcher writes, such as one left over in the shell.
    """
    check_variables(environment)
    unsupported = [name for name in ("FSDP", "MEGATRON_LM") if environment.get(f"ACCELERATE_USE_{name}") == "true"]
    on_cpu = environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    processes = int(environment.get("WORLD_SIZE", "1"))
    return Launcher(
        processes=processes,
        local_processes=int(environment.get("LOCAL_WORLD_SIZE", processes)),
        gpus=0 if on_cpu else torch.cuda.device_count(),
        deepspeed=environment.get("ACCELERATE_USE_DEEPSPEED") == "true",
        unsupported=unsupported[0] if unsupported else None,
        mixed_precision=environment.get("ACCELERATE_MIXED_PRECISION"),
        gradient_accumulation=environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS"),
    )


def training_precision(config: Config, launcher: Launcher) -> str | None:
    """Return the precision that a run trains in: no, bf16 or fp16; None leaves it to the launcher."""
    wanted, device = config.training.mixed_precision, "cuda" if launcher.gpus else "cpu"
    return None if wanted is None else resolve_precision(wanted, launcher.mixed_precision, device)


def make_accelerator(config: Config) -> Accelerator:
    """Build the one Accelerator of a run from the launcher's settings and the configuration."""
    launcher = read_launcher()
    # Attention stages leave the classifier without a gradient.
    handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    if launcher.several or launcher.deepspeed:
        backend = "nccl" if launcher.gpus else "gloo"  # DeepSpeed on CPU must be told
        handlers.append(InitProcessGroupKwargs(backend=backend, timeout=EXCHANGE))
        import_before_groups()
    run_dir = Path(config.run_dir or ".")
    accelerator = Accelerator(
        # Left to itself, accelerate takes several CPU processes for so many runs that know nothing of each other.
        cpu=launcher.several and not launcher.deepspeed and not launcher.gpus,
        mixed_precision=training_precision(config, launcher),
        # As a plugin, because a number is overruled by what the launcher exports, even by DeepSpeed's "auto".
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.training.gradient_accumulation),
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(run_dir), logging_dir=str(run_dir)),
        kwargs_handlers=handlers,
    )
    if launcher.deepspeed:
        # Under ZeRO-3 transformers would load every model in shards. Ours are whole; what trains is a sharded copy.
        unset_hf_deepspeed_config()
    if launcher.several:
        patient_group()
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


def end_training(accelerator: Accelerator) -> None:
    """Close TensorBoard and the process groups.

    Nothing may hold a group any longer: gloo's threads would abort the interpreter when it ends, after all was done.
    """
    patient_group.cache_clear()
    accelerator.end_training()


@functools.cache
def patient_group() -> Any:
    """Return a second group of all processes, on which they wait for the main one for as long as it takes."""
    group = torch.distributed.new_group(backend="gloo", timeout=WAIT)
    # A connection that was never used is made at first use: a process that is dead by then would be waited for.
    torch.distributed.barrier(group)
    return group


def on_main_process(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Do ``work`` on the main process alone while the others wait, and hand all of them the result.

    Raises:
        UserError: on every process, if ``work`` raised it.
    """
    outcome: list[Any] = [None, None]
    group = patient_group() if accelerator.num_processes > 1 else None
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except UserError as error:
            outcome[1] = str(error)
    if group is not None:
        torch.distributed.broadcast_object_list(outcome, src=0, group=group, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise (UserError if accelerator.is_main_process else SharedError)(outcome[1])
    return outcome[0]


def main_process_first(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Do ``work`` on every process, on the main one first: the others find what it downloaded.

    Raises:
        UserError: on every process, if it was raised on the main one.
    """
    results: list[Result] = []
    on_main_process(accelerator, lambda: results.append(work()))
    return results[0] if accelerator.is_main_process else work()


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


def collect_weights(accelerator: Accelerator, wrapped: nn.Module, model: nn.Module) -> None:
    """Bring ``model`` up to date, on every process, where a copy of it is trained."""
    source = accelerator.unwrap_model(wrapped).model
    if source is model:
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(list(source.parameters())):
        model.load_state_dict(source.state_dict())
