"""What the launcher exported: processes, devices, precision, and how training is shared out."""

import dataclasses
import os
import re
from collections.abc import Mapping

import torch

from distill.config.schema import PRECISIONS, Config
from distill.training.precision import resolve_precision
from distill.utils.errors import UserError, choices_hint


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


SIZES_OF_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""What launchers of MPI write; accelerate reads it, too."""
LOWEST = {
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"), 1),
    # accelerate launch says -1 for the rank of a process that is alone
    **dict.fromkeys(("RANK", "LOCAL_RANK"), -1),
    **dict.fromkeys(SIZES_OF_MPI, 1),
}
"""Numbers that launchers export, and the lowest that each can have."""
HIGHEST_PORT = 65535


def check_variables(environment: Mapping[str, str]) -> None:
    """Refuse what torch and accelerate would fail on far from here; UserError names the variable."""
    way_out = "unset it, or start with accelerate launch or torchrun"
    for name, lowest in LOWEST.items():
        value = environment.get(name, str(lowest))
        if not re.fullmatch(r"-?[0-9]{1,9}", value) or int(value) < lowest:
            raise UserError(f"{name} is {value!r} in the environment, not a whole number from {lowest} on; {way_out}")
    processes = int(environment.get("WORLD_SIZE", "1"))
    # accelerate takes any rank for a sign that there are others
    joins = processes > 1 or environment.get("LOCAL_RANK", "-1") != "-1"
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if joins else ():
        if environment.get(name, "") in ("", "-1"):
            given = "LOCAL_RANK" if name == "WORLD_SIZE" or processes == 1 else "WORLD_SIZE"
            raise UserError(f"{given} is {environment[given]} in the environment but {name} is missing; {way_out}")
    local = int(environment.get("LOCAL_WORLD_SIZE", processes))
    limits = {
        "RANK": ("WORLD_SIZE", processes - 1),
        "LOCAL_RANK": ("LOCAL_WORLD_SIZE", local - 1),
        "LOCAL_WORLD_SIZE": ("WORLD_SIZE", processes),
    }
    for name, (total, highest) in limits.items():
        if int(environment.get(name, "0")) > highest:
            raise UserError(
                f"{name} is {environment[name]} in the environment but {total} is {environment.get(total, processes)}"
                f"; {way_out}"
            )
    if int(environment.get("MASTER_PORT", "1")) > HIGHEST_PORT:
        raise UserError(f"MASTER_PORT is {environment['MASTER_PORT']} in the environment, no port; {way_out}")
    for name in SIZES_OF_MPI if "WORLD_SIZE" not in environment else ():
        if int(environment.get(name, "1")) > 1:
            raise UserError(
                f"{name} is {environment[name]} in the environment but WORLD_SIZE is missing: the processes would not "
                "find each other; start with accelerate launch or torchrun"
            )
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
