"""The attention benchmark: what it times, what it refuses, and its arithmetic."""

import json
import shlex
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import warm
from torch import Tensor

from distill.benchmark.attention_kernels import (
    Contender,
    ParityError,
    Setting,
    check_parity,
    compare_times,
    make_inputs,
    ratio_table,
    run_attention,
    time_length,
)

ROOT = Path(__file__).resolve().parents[3]


def _mean(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return value.mean(2, keepdim=True) + 0 * (query + key)


def test_inputs_lie_in_memory_as_a_bert_layer_leaves_them() -> None:
    for tensor in make_inputs(2, 3, 5, 4):
        assert tensor.shape == (2, 3, 5, 4)
        assert tensor.stride() == (60, 4, 12, 1)


def test_backward_returns_the_gradient_of_the_upstream_product() -> None:
    query, key, value, upstream = make_inputs(1, 1, 4, 2)
    context, dquery, dkey, dvalue = run_attention(
        lambda q, k, v: q * 2 + k * 3 + v, (query, key, value, upstream), backward=True
    )
    assert torch.equal(context, query * 2 + key * 3 + value)
    assert torch.equal(dquery, 2 * upstream)
    assert torch.equal(dkey, 3 * upstream)
    assert torch.equal(dvalue, upstream)


def test_parity_passes_equals_and_names_who_differs_and_where() -> None:
    def softmax(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.mT).softmax(-1) @ value

    def detached(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.mT).softmax(-1) @ (2 * value - value.detach())

    check_parity({"same": Contender(softmax, softmax, 1e-6)}, num_heads=2, head_size=4)
    with pytest.raises(ParityError, match="uniform: context"):
        check_parity({"uniform": Contender(_mean, softmax, 1e-3)}, num_heads=2, head_size=4)
    with pytest.raises(ParityError, match="detached: dvalue"):
        check_parity({"detached": Contender(detached, softmax, 1e-3)}, num_heads=2, head_size=4)


def test_time_length_keeps_tokens_constant_and_leaves_out_large_maps() -> None:
    shapes: list[tuple[int, ...]] = []

    def spy(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shapes.append(tuple(query.shape))
        return query + key + value

    ticks = count()
    contenders = {"spy": Contender(spy, spy, 0), "large": Contender(spy, spy, 0, score_bytes=4)}
    setting = Setting(num_heads=2, head_size=4, batch_tokens=32, seconds=1, max_score_bytes=4 * 4 * 2 * 8 * 8 - 1)
    times, reasons = time_length(contenders, 8, setting, backward=True, clock=lambda: next(ticks) / 100)
    assert set(shapes) == {(4, 2, 8, 4)}
    assert set(times) == {"spy"}
    assert times["spy"].size >= 6
    assert times["spy"] == pytest.approx(0.01)
    assert reasons == {"large": "its attention map takes 0.0 GiB"}


def test_speedup_is_the_rivals_time_over_the_subjects() -> None:
    times = {"performer": np.full((2, 4), 0.002), "sdpa": np.full((2, 4), 0.006)}
    sdpa, eager, peer = compare_times(
        times, {"eager": "too large"}, "performer", {"sdpa": "sdpa", "eager": "eager", "peer": "peer 64"}
    )
    assert sdpa["speedup"] == pytest.approx(3)
    assert (sdpa["low"], sdpa["high"]) == pytest.approx((3, 3))
    assert (sdpa["performer_ms"], sdpa["rival_ms"]) == pytest.approx((2, 6))
    assert sdpa["rounds"] == 8
    assert eager == {"rival": "eager", "speedup": None, "reason": "too large"}
    assert peer["reason"] == "not installed"


def test_the_table_shows_ratios_intervals_and_reasons() -> None:
    point = {"pass": "forward", "length": 512, "num_features": 64}
    rows = [
        point | {"rival": "sdpa", "speedup": 2.5, "low": 2.25, "high": 2.75},
        point | {"rival": "eager", "speedup": None, "reason": "too large"},
    ]
    lines = ratio_table(rows).splitlines()
    assert lines[0].startswith("forward")
    assert lines[2].split() == ["length", "features", "sdpa", "eager"]
    assert lines[3].split() == ["512", "64", "2.50", "[2.25,", "2.75]", "-"]
    assert lines[-1] == "- eager: too large"


def test_the_script_writes_every_point_with_its_environment(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    options = "--lengths 16 48 --num-features 8 --head-size 8 --batch-tokens 96 --threads 1 --seconds 0.05"
    command = [str(ROOT / "pipelines" / "bench_kernels.py"), *shlex.split(options), "--output", str(output)]
    done = warm.run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert record["environment"]["threads"] == 1
    points = {(row["pass"], row["length"], row["num_features"], row["rival"]) for row in record["rows"]}
    assert len(points) == len(record["rows"]) == 2 * 2 * 1 * 3
    for row in record["rows"]:
        assert row["reason"] if row["speedup"] is None else row["low"] <= row["speedup"] <= row["high"]
    assert "forward+backward" in done.stdout


def test_the_script_refuses_a_bad_option_in_one_line(tmp_path: Path) -> None:
    done = warm.run([str(ROOT / "pipelines" / "bench_kernels.py"), "--lengths", "0"], cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
