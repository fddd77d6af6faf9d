"""The benchmark of language models: what it times, what it fits, what it refuses."""

import json

import pytest
from helpers.in_process import call

from distill.benchmark.growth import growth_exponent
from pipelines.bench_text import main

SMALL = ("--hidden-size", 16, "--heads", 2, "--batch-tokens", 256, "--seconds", 0.01, "--layers", 1)


def test_every_point_is_timed_and_written(monkeypatch, tmp_path, capsys):
    output = tmp_path / "text.json"
    options = ("--mechanisms", "softmax", "linear", "--lengths", 32, 64, "--output", output)
    assert call(monkeypatch, main, *SMALL, *options) == 0
    record = json.loads(output.read_text())
    assert [(point["model"], point["length"], point["batch_size"]) for point in record["points"]] == [
        ("softmax", 32, 8),
        ("linear", 32, 8),
        ("softmax", 64, 4),
        ("linear", 64, 4),
    ]
    assert all(point["low"] <= point["milliseconds"] <= point["high"] for point in record["points"])
    assert all(point["activation_megabytes"] > 0 for point in record["points"])
    assert set(record["exponents"]) == {"softmax-1", "linear-1"}
    assert record["environment"]["cores"]
    assert "softmax" in capsys.readouterr().out


def test_the_same_number_of_windows_is_another_measurement(monkeypatch, tmp_path):
    output = tmp_path / "text.json"
    options = ("--mechanisms", "linear", "--lengths", 16, 32, "--batch-size", 3, "--output", output)
    assert call(monkeypatch, main, *SMALL, *options) == 0
    record = json.loads(output.read_text())
    assert [(point["length"], point["batch_size"]) for point in record["points"]] == [(16, 3), (32, 3)]
    assert (record["batch_tokens"], record["batch_size"]) == (None, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mechanisms", "fnet"), "--mechanisms fnet has no causal form: it gives every token a Fourier coefficient"),
        (("--mechanisms", "perfomer"), "did you mean 'performer'"),
        (("--heads", 3), "--heads 3 must divide --hidden-size 16"),
    ],
)
def test_what_cannot_be_timed_is_refused(monkeypatch, tmp_path, capsys, options, said):
    assert call(monkeypatch, main, *SMALL, "--output", tmp_path / "text.json", *options) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_the_exponent_is_that_of_the_cost_of_a_token():
    points = [
        {"length": length, "batch_size": 4096 // length, "ms": 4096 * length**0.5} for length in (128, 512, 2048)
    ]
    assert growth_exponent(points, "ms") == pytest.approx(0.5)
    points[1]["ms"] = None
    assert growth_exponent(points, "ms") == pytest.approx(0.5)
    assert growth_exponent(points[:1], "ms") is None
