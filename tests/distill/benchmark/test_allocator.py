"""Freed memory that is kept is not mapped and cleared again."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from distill.benchmark.allocator import keep_freed_memory

if sys.argv[1:] == ["keep"]:
    assert keep_freed_memory()
for _ in range(10):  # the heap grows until every size has its place
    torch.ones(2**24)  # 64 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is that of Linux's C library")
def test_freed_memory_is_kept_on_request():
    assert faults("keep") < 100
    assert faults() > 1000


def test_elsewhere_nothing_is_set(monkeypatch):
    from distill.benchmark import allocator

    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False
