"""Peaks of real fresh processes: they grow with the work, and failures become reasons."""

import sys

import pytest
import torch
from helpers.tiny_bert import tiny_bert

from distill.benchmark import memory, memory_worker
from distill.benchmark.conditions import Conditions

CONDITIONS = Conditions("cpu", torch.float32, vocabulary_size=50)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_bert(hidden_size=64, intermediate_size=2048, max_position_embeddings=128).save_pretrained(folder)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_peaks_failures_and_lengths_beyond_the_table(checkpoint, tmp_path):
    entries = memory.measure_memory(
        {"teacher": checkpoint, "student": tmp_path / "missing"}, CONDITIONS, [(8, 64), (8, 1024)]
    )
    short, long = entries
    assert (short.device, short.dtype, short.batch_size, short.length) == ("cpu", "float32", 8, 64)
    # GELU's input and output live together, 8 * N * 2048 * 4 bytes each: 8.4 MB, and 134 MB at 1024 tokens.
    assert 8.3 < short.teacher_mb < 13
    assert 134 < long.teacher_mb < 160
    assert short.student_mb is None
    assert short.reason.startswith("student: ")


def test_a_helper_that_dies_gives_reasons(monkeypatch, checkpoint):
    monkeypatch.setattr(memory.sys, "executable", "/bin/false")
    entries = memory.measure_memory({"teacher": checkpoint}, CONDITIONS, [(1, 8)])
    assert entries[0].teacher_mb is None
    assert entries[0].reason == "teacher: no answer"


def test_a_killed_process_counts_as_out_of_memory(monkeypatch):
    monkeypatch.setattr(memory_worker, "_answer", lambda job: memory.os.kill(memory.os.getpid(), 9))
    assert memory_worker._in_fork({}) == {"reason": "out of memory"}


def test_exhaustion_and_errors_are_told_apart(monkeypatch):
    def fail(error):
        def peak(job):
            raise error

        monkeypatch.setattr(memory_worker, "_peak_of_forward", peak)
        return memory_worker._answer({})

    assert fail(MemoryError()) == {"reason": "out of memory"}
    assert fail(ValueError("bad\nsecond line")) == {"reason": "ValueError: bad"}
