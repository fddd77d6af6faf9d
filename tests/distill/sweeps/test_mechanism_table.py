"""The benchmark of mechanisms inside a leaderboard: its table, and speed for runs that were not timed."""

import json

import pytest

from distill.sweeps.mechanism_table import mechanism_cells, read_bench, with_speed
from distill.utils.errors import UserError


def make_row(name: str, speedups: dict[int, float]) -> dict:
    student = [
        {"length": length, "milliseconds": 10.0, "speedup": value, "low": value - 0.1, "high": value + 0.1}
        | {"megabytes": 12.0, "flops": 3_000_000}
        for length, value in speedups.items()
    ]
    return {
        **{"attention": name, "claims": "linear", "time_exponent": 1.04, "memory_exponent": None},
        **{"core": [], "student": student},
    }


@pytest.fixture
def path(tmp_path):
    shape = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12}
    rows = [
        make_row("performer", {128: 0.8, 2048: 2.5, 4096: 4.0}),
        make_row("fnet", {128: 1.5}),
        make_row("lstm", {}),
    ]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"student_shape": shape, "rows": rows}))
    return path


def test_table(path):
    cells = mechanism_cells(read_bench(path), {"performer", "fnet"})
    assert cells.headers[4:] == ("128 tokens", "2,048 tokens", "4,096 tokens", "compute / longest")
    performer, fnet = cells.rows
    assert performer[:5] == ("performer", "linear", "1.04", "n/a", "10.0 ms · 0.80× [0.70, 0.90] · 12 MB")
    assert performer[-1] == "3 MFLOP"
    assert fnet[4:] == ("10.0 ms · 1.50× [1.40, 1.60] · 12 MB", "n/a", "n/a", "n/a")
    assert any(note.endswith(f": {path.name}") for note in cells.notes)
    assert not any(str(path.parent) in note for note in cells.notes)


def test_only_a_student_that_was_not_timed_gets_the_speed_of_its_attention(path):
    bench = read_bench(path)
    (point,) = with_speed({"attention": "performer", "speed": []}, bench)["speed"]
    assert (point["length"], point["speedup"], point["over_softmax"]) == (2048, 2.5, True)
    timed = {"attention": "performer", "speed": [{"speedup": 9.0}]}
    assert with_speed(timed, bench) == timed
    for name in ("softmax", "lstm"):
        assert with_speed({"attention": name, "speed": []}, bench)["speed"] == []


@pytest.mark.parametrize("content", [None, "{", "[]", '{"rows": [1]}'])
def test_what_is_no_such_record_is_refused(tmp_path, content):
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"bench\.json .*bench_mechanisms\.py"):
        read_bench(path)
