"""Peak memory of a forward pass, every point in a fresh process.

A process that already ran something keeps memory that the next run takes without asking, so its peak says little. One
helper process imports the libraries once and forks a new process per point; that one loads the checkpoint, runs the
batch once so that weights and kernels are in memory, notes what it holds, runs the batch again, and reports how far
the peak rose above what it held: what is alive at the same time during a forward pass, beside the weights.
"""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distill.benchmark.conditions import Conditions
from distill.benchmark.points import MemoryPoint

ROOT = Path(__file__).resolve().parents[2]
SECONDS_PER_POINT = 120.0
STARTUP_SECONDS = 180.0


def measure_memory(
    folders: Mapping[str, Path | str],
    conditions: Conditions,
    points: Sequence[tuple[int, int]],
    *,
    remote_code: Collection[str] = (),
    in_windows: Collection[tuple[str, int]] = (),
) -> tuple[MemoryPoint, ...]:
    """Measure how much memory a forward pass needs beside the weights, in MB (10⁶ bytes).

    Args:
        folders: checkpoint of each model by role, such as ``teacher`` and ``student``.
        conditions: device and dtype; resident memory of the process on CPU, allocated memory on CUDA.
        points: pairs of batch size and length in tokens; beyond a position table it is tiled.
        remote_code: roles whose own code, in the checkpoint folder, may run; only students that we saved.
        in_windows: roles and lengths at which a BERT reads windows, instead of a tiled table.

    Returns:
        The entries ``memory`` of the record; null with a ``reason`` where a point could not be measured.
    """
    jobs = [
        {
            "folder": str(Path(folder).resolve()),
            "role": role,
            "device": str(conditions.device),
            "dtype": conditions.place["dtype"],
            "batch_size": batch_size,
            "length": length,
            "threads": torch.get_num_threads(),
            "trust_remote_code": role in remote_code,
            "in_windows": (role, length) in in_windows,
        }
        for batch_size, length in points
        for role, folder in folders.items()
    ]
    answers = _run_helper(jobs, STARTUP_SECONDS + SECONDS_PER_POINT * len(jobs))
    entries = []
    for index, (batch_size, length) in enumerate(points):
        answered = dict(zip(folders, answers[index * len(folders) :], strict=False))
        reasons = [f"{role}: {answer['reason']}" for role, answer in answered.items() if "reason" in answer]
        entry: dict[str, Any] = {**conditions.place, "batch_size": batch_size, "length": length}
        entry |= {f"{role}_mb": answer.get("peak_mb") for role, answer in answered.items()}
        entries.append(MemoryPoint(**entry, reason="; ".join(reasons) or None))
    return tuple(entries)


def _run_helper(jobs: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Answer every job through the helper process; jobs that it did not answer get a reason."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        # Freed tensors go back to the system at once, so that the peak is what was alive, not what was kept.
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    # -P: neither this file's folder nor the working directory may shadow a library.
    command = [sys.executable, "-P", "-m", "distill.benchmark.memory_worker"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
        output, reason = done.stdout, (done.stderr.strip().splitlines() or ["no answer"])[-1]
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        reason = "no answer in time"
    answers = [json.loads(line) for line in output.splitlines() if line.endswith("}")]
    return answers + [{"reason": reason}] * (len(jobs) - len(answers))
