"""Where a number was measured: versions, processor, commit and command, without names of people or machines."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "accelerate", "deepspeed")


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    """Marketing name of the processor: from /proc/cpuinfo on Linux, else what the platform says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith(("model name", "hardware"))]
    return names[0] if names else platform.processor() or platform.machine() or None


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> tuple[str | None, bool | None]:
    """Commit of this checkout and whether tracked files differ from it; nulls where it is no checkout of its own."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return None, None
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def without_private_paths(argument: str) -> str:
    """Shorten an absolute path, alone or after ``--key=``, to what it is called from here or to its last name."""
    key, separator, value = argument.rpartition("=") if argument.startswith("-") else ("", "", argument)
    path = Path(value).expanduser()
    if not path.is_absolute():
        return argument
    for base in (Path.cwd(), ROOT):
        if path.is_relative_to(base):
            return f"{key}{separator}{path.relative_to(base)}"
    return f"{key}{separator}{path.name}"


def command_line(arguments: list[str] | None = None) -> str:
    """Return the command that started this process, in a form that may be published."""
    arguments = sys.argv if arguments is None else arguments
    interpreter = ["python"] if arguments[0].endswith(".py") else []  # none before an installed command
    return shlex.join([*interpreter, *map(without_private_paths, arguments)])


def instruction_set() -> str:
    """Return the widest instructions that torch's kernels use on this CPU, and whether it multiplies bf16 natively.

    Such as ``AVX2`` or ``AVX512 AVX512_BF16 AMX``; what an environment variable forbids is left out.
    """
    widest = torch.backends.cpu.get_cpu_capability()
    names = {"AVX512_BF16": torch.cpu._is_avx512_bf16_supported, "AMX": torch.cpu._is_amx_tile_supported}
    further = [name for name, supported in names.items() if widest.startswith("AVX512") and supported()]
    return " ".join([widest, *further])


def describe_environment(device: torch.device | str = "cpu", training_precision: str | None = None) -> dict[str, Any]:
    """Describe the machine and the software of a measurement; what cannot be found out is null.

    Args:
        device: where it was measured.
        training_precision: in which the student was trained, ``no`` (fp32), ``bf16`` or ``fp16``; None if unknown.

    Returns:
        Versions (``python``, ``torch``, ``transformers``, ``accelerate``, ``deepspeed``), ``platform``, ``device``,
        ``cpu``, ``instruction_set``, ``training_precision``, ``cores`` (logical, usable by this process), ``threads``
        (torch's), ``memory_gb``, ``gpu``, ``gpu_memory_gb``, ``commit``, ``dirty``, ``command`` and ``date`` (UTC, ISO
        8601).
    """
    device = torch.device(device)
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    commit, dirty = _commit()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        **{name: _package_version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "cpu": _cpu_model(),
        "instruction_set": instruction_set(),
        "training_precision": training_precision,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "gpu": gpu.name if gpu else None,
        "gpu_memory_gb": round(gpu.total_memory / 2**30, 1) if gpu else None,
        "commit": commit,
        "dirty": dirty,
        "command": command_line(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
