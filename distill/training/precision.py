"""In which precision a device should train: bf16 where it multiplies it natively, else fp32.

A CPU without AVX-512 emulates bf16: a training step then takes 8 to 13 times as long as in fp32.
"""

import functools
from time import perf_counter

import torch

from distill.config.schema import AUTO

PROBE_SIZE = 256
"""Rows and columns of the matrices that are multiplied: large enough to reach the kernels that training uses."""
PROBE_REPEATS = 10


def native_precision(device_type: str) -> str:
    """Return ``bf16`` where the device multiplies it natively, else ``no``.

    A CPU must say so, and a small product must not take longer in bf16 than in fp32: what an emulator or a virtual
    machine says of its processor is not always what it does.

    Args:
        device_type: ``cpu``, ``cuda``, or another of torch's, which all train in fp32.
    """
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if device_type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "no"
    return "bf16" if bf16_slowdown() <= 1 else "no"


@functools.cache
def bf16_slowdown() -> float:
    """Return how many times as long a product of 256 x 256 matrices takes in bf16 as in fp32 on this CPU.

    The shortest of several times: what else runs on the machine makes a product longer, never shorter.
    """
    return _product_seconds(torch.bfloat16) / _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(PROBE_SIZE, PROBE_SIZE, dtype=dtype)
    seconds = []
    for _ in range(PROBE_REPEATS + 1):  # the first one also chooses and compiles the kernel
        started = perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(perf_counter() - started)
    return min(seconds[1:])


def resolve_precision(wanted: str, launcher: str | None, device_type: str) -> str:
    """Return the precision to train in.

    Args:
        wanted: ``training.mixed_precision``; ``auto`` takes what the launcher asks for, or what the device does
            natively.
        launcher: what the launcher says; ``no`` is also what it says unasked.
        device_type: as in :func:`native_precision`.
    """
    if wanted != AUTO:
        return wanted
    return launcher if launcher not in (None, "no") else native_precision(device_type)
