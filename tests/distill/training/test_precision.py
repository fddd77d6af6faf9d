"""bf16 is taken where the device multiplies it, and only there."""

import os
import subprocess
import sys

import pytest
import torch

from distill.training import precision
from distill.training.precision import bf16_slowdown, native_precision, resolve_precision

PROGRAM = """
from distill.utils.environment import instruction_set
from distill.training.precision import bf16_slowdown, native_precision
print(native_precision("cpu"), bf16_slowdown() > 2, instruction_set())
"""


def test_a_cpu_that_emulates_bf16_trains_in_fp32():
    """On a CPU with AVX-512, told to do without; one without needs no telling."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)
    native, slow, *instructions = done.stdout.split()
    assert native == "no"
    assert slow == "True"
    assert not any("512" in name or "AMX" in name for name in instructions)


def test_this_cpu_says_bf16_only_if_it_is_not_slower():
    if native_precision("cpu") == "bf16":
        assert torch.ops.mkldnn._is_mkldnn_bf16_supported()
        assert bf16_slowdown() <= 1


def test_a_processor_whose_word_is_not_kept_is_not_believed(monkeypatch):
    monkeypatch.setattr(precision, "bf16_slowdown", lambda: 1.5)
    assert native_precision("cpu") == "no"


def test_other_devices_train_in_fp32():
    assert native_precision("mps") == "no"


@pytest.mark.parametrize("wanted", ["no", "bf16", "fp16"])
def test_what_is_said_is_done(wanted):
    assert resolve_precision(wanted, "bf16", "cpu") == wanted


def test_auto_asks_the_launcher_and_then_the_device(monkeypatch):
    monkeypatch.setattr(precision, "native_precision", lambda device: f"native of {device}")
    assert resolve_precision("auto", "fp16", "cuda") == "fp16"
    for unasked in ("no", None):
        assert resolve_precision("auto", unasked, "cuda") == "native of cuda"
