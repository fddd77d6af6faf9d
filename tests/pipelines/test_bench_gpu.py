"""pipelines/bench_gpu.py, as far as a machine without a GPU can tell: what it compares, times and prints."""

import json

import pytest
import torch
from helpers.in_process import call

from distill.utils.errors import UserError
from pipelines import bench_gpu
from students.attention.softmax import SoftmaxAttention


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_is_refused(monkeypatch, capsys, tmp_path):
    output = tmp_path / "it.json"
    assert call(monkeypatch, bench_gpu.main, "--output", output) == 2
    assert "no GPU is visible" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mechanism_agrees_with_its_own_copy(dtype):
    row = bench_gpu.check_mechanism("softmax", dtype, "cpu")
    assert row["passed"]
    assert 0 < row["error"] <= bench_gpu.TOLERANCES[row["dtype"]]


def test_a_wrong_kernel_is_noticed(monkeypatch):
    attend = SoftmaxAttention.attend

    def wrong_below_fp64(self, query, key, value, mask):
        return attend(self, query, key, value, mask) * (1 if value.dtype == torch.float64 else 1.01)

    monkeypatch.setattr(SoftmaxAttention, "attend", wrong_below_fp64)
    assert not bench_gpu.check_mechanism("softmax", torch.float32, "cpu")["passed"]


def test_the_ways_of_performer_attend_alike():
    ways = bench_gpu.contenders(2, 24, "cpu")
    assert set(ways) == {"sdpa", "performer"}
    assert ways["performer"]().shape == ways["sdpa"]().shape == (2, bench_gpu.NUM_HEADS, 24, bench_gpu.HEAD_SIZE)


def test_layers_are_timed_with_padding_and_without(monkeypatch):
    monkeypatch.setattr(bench_gpu, "LARGE", bench_gpu.SMALL | {"hidden_size": 64})
    ways = bench_gpu.encoders(3, 24, "cpu")
    assert list(ways) == ["softmax", "softmax unpadded", "performer", "performer unpadded"]
    with torch.no_grad():
        for name in ("softmax", "performer"):
            padded, unpadded = ways[name]()[-1].float(), ways[f"{name} unpadded"]().float()
            assert padded.shape == unpadded.shape == (3, 1, 64)
            assert torch.allclose(padded, unpadded, atol=0.1)  # bf16


def test_points_are_written_and_printed(monkeypatch, capsys, tmp_path):
    output, point = tmp_path / "it.json", ("--lengths", 16, "--batch_sizes", 1, "--seconds", 0.05)
    assert (
        call(monkeypatch, bench_gpu.main, "--device", "cpu", "--parts", "attention", *point, "--output", output) == 0
    )
    rows = json.loads(output.read_text())["attention"]
    assert [row["way"] for row in rows] == ["sdpa", "performer"]
    assert rows[0]["speedup"] == 1
    assert "16 tokens  performer" in capsys.readouterr().out


def test_a_failed_launcher_is_said():
    record = {"training": [{"launcher": "DDP", "seconds": 3.0, "passed": False, "reason": "error: no such device"}]}
    assert bench_gpu.summary(record) == "DDP: error: no such device, 3 s"


def test_a_folder_that_cannot_be_is_refused_before_anything_is_measured(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "it.json"
    assert call(monkeypatch, bench_gpu.main, "--device", "cpu", "--output", output) == 2
    assert "cannot be created" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_seconds_are_above_0(seconds):
    with pytest.raises(UserError, match=f"'{seconds}' is not a number of seconds above 0"):
        bench_gpu.parse(["--seconds", seconds])
