"""Whether memory and disk suffice, told before anything is trained."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from distill.preflight.checks import existing_parent
from distill.preflight.memory_estimate import Memory
from distill.training.launcher import Sharding
from distill.utils.findings import ERROR, OK, WARNING, Finding


def gigabytes(number: float) -> str:
    return f"{number / 1e9:.2f} GB"


def check_memory(
    phase: str, memory: Memory, sharding: Sharding, device: str, free: int, host: int
) -> Iterator[Finding]:
    """Hold the memory of the largest phase against what is free for one process.

    Weights, gradients and optimizer states that do not fit are an error; activations are an estimate, and warn.

    Args:
        free: bytes on the device; on a CPU the process's share.
        host: bytes of the machine's memory that offloaded states may take.
    """
    parts = f"weights {gigabytes(memory.weights)}, gradients {gigabytes(memory.gradients)}, optimizer "
    parts += f"{gigabytes(memory.optimizer)}, activations {gigabytes(memory.activations)}"
    need = (
        f"memory: {phase} needs {gigabytes(memory.total)} ({parts}) of {gigabytes(free)} free per process on {device}"
    )
    if memory.offloaded > host:
        yield Finding(
            ERROR,
            f"memory: {phase} keeps {gigabytes(memory.offloaded)} of optimizer states in the machine's memory, "
            f"{gigabytes(host)} are free; use more machines or no offloading",
        )
    elif memory.certain > free:
        yield Finding(ERROR, f"{need}; {memory_way_out(sharding)}")
    elif memory.total > free:
        yield Finding(WARNING, f"{need}; lower batch_size or data.max_length, or raise training.gradient_accumulation")
    else:
        yield Finding(OK, need)


def memory_way_out(sharding: Sharding) -> str:
    """Name the next thing to try when weights and optimizer states do not fit."""
    if sharding.zero_stage is None:
        return "use configs/accelerate/deepspeed_zero2.yaml with more processes, or a smaller model"
    return "use more processes, or offload_optimizer_device: cpu in the launcher file, or a smaller model"


def memory_table(needs: Callable[[Sharding], Memory], half: bool) -> Iterator[str]:
    """Yield the lines of a table: GB per process for every way to share out training.

    Args:
        needs: memory of the largest phase under a sharding.
        half: mixed precision.
    """
    counts = (1, 2, 8)
    yield f"{'memory per process, GB':26}" + "".join(f"{f'{n} process' + 'es' * (n > 1):>14}" for n in counts)
    for stage, offload in ((None, False), (2, False), (2, True), (3, False), (3, True)):
        ways = [Sharding(processes, stage, offload, half) for processes in counts]
        yield f"{ways[0].name:26}" + "".join(f"{needs(way).total / 1e9:14.2f}" for way in ways)


def check_disk(needed: Mapping[Path, int]) -> Iterator[Finding]:
    """Hold what a run will still write against the free space.

    Args:
        needed: folder to bytes; folders on one disk are added up.
    """
    disks: dict[int, tuple[int, list[Path]]] = {}
    for folder, size in needed.items():
        disk = existing_parent(folder).stat().st_dev
        before, folders = disks.get(disk, (0, []))
        disks[disk] = (before + size, [*folders, folder])
    for size, folders in disks.values():
        free = shutil.disk_usage(existing_parent(folders[0])).free
        line = f"disk: needs {gigabytes(size)} of {gigabytes(free)} in {' and '.join(map(str, folders))}"
        if size > free:
            yield Finding(ERROR, f"{line}; give another run_dir or cache.dir, or lower cache.max_gigabytes")
        else:
            yield Finding(OK, line)
