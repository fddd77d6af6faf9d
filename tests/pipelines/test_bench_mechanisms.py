"""The benchmark of all mechanisms: the fit of growth, and the command on two of them."""

import json
import subprocess
from pathlib import Path

import pytest
from helpers import warm

from pipelines.bench_mechanisms import exponent

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "bench_mechanisms.py"
LENGTHS = ("--lengths", "512", "1024", "--student_lengths", "64", "--seconds", "0.2")


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent_of_a_power_law(power):
    values = {length: 3e-3 * length**power for length in (512, 1024, 4096, 8192)}
    assert exponent(values) == pytest.approx(power)
    assert exponent(values | {64: 1e9}) == pytest.approx(power)  # fixed costs of short inputs do not count
    assert exponent({512: 1.0}) is None


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run([str(SCRIPT), *arguments])


def test_command_writes_every_point(tmp_path):
    output = tmp_path / "zoo.json"
    done = bench("--attentions", "performer", *LENGTHS, "--output", str(output))
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert [row["attention"] for row in record["rows"]] == ["softmax", "performer"]  # SDPA is always there
    for row in record["rows"]:
        assert [point["length"] for point in row["core"]] == [512, 1024]
        assert all(point["milliseconds"] > 0 and point["megabytes"] > 0 for point in row["core"])
        (student,) = row["student"]
        assert student["length"] == 64
        # Its matrix products with weights alone; of the last layer, one token's but for keys and values.
        weights = 5 * (4 * 384 + 2 * 1536) + 2 * 384
        assert student["flops"] > 64 * 2 * 384 * weights
        assert student["milliseconds"] > 0
    softmax, performer = record["rows"]
    assert all(point["speedup"] == 1 for point in softmax["core"])
    assert 0.5 < performer["memory_exponent"] < 1.3
    assert "performer" in done.stdout


def test_training_needs_more_memory_and_time_than_a_forward_pass(tmp_path):
    output = tmp_path / "training.json"
    sizes = ("--lengths", "--student_lengths", "64", "--training_lengths", "64", "--batch_size", "3")
    done = bench("--attentions", "performer", *sizes, "--seconds", "0.2", "--output", str(output))
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert record["batch_size"] == 3
    for row in record["rows"]:
        (forward,), (both,) = row["student"], row["training"]
        assert row["core"] == []
        assert both["megabytes"] > 1.5 * forward["megabytes"]
        assert both["milliseconds"] > 1.5 * forward["milliseconds"]


def test_unknown_name_is_refused():
    done = bench("--attentions", "perfomer")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: --attentions perfomer")
    assert "did you mean 'performer'" in done.stderr


def test_a_length_that_takes_too_long_is_null_and_the_rest_goes_on(tmp_path):
    output = tmp_path / "zoo.json"
    short = ("--lengths", "16", "2048", "--student_lengths", "--seconds", "0.005")
    done = bench("--attentions", "knn", *short, "--output", str(output))
    assert done.returncode == 0, done.stderr
    for row in json.loads(output.read_text())["rows"]:
        first, last = row["core"]
        assert first["speedup"] > 0
        assert last["speedup"] is None
        assert "give more --seconds" in last["reason"]
        assert row["time_exponent"] is None
