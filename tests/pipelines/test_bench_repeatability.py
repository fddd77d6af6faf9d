"""The benchmark of the measuring itself: what it counts, and the command on a tiny run."""

import json
from pathlib import Path

from helpers import warm

from distill.benchmark.points import SpeedPoint
from distill.utils.record_json import unmeasured
from pipelines.bench_repeatability import null_coverage, repeatability

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "bench_repeatability.py"


def point(speedup: float | None, low: float | None = None, high: float | None = None) -> SpeedPoint:
    place = {"device": "cpu", "dtype": "float32", "batch_size": 1, "length": 16}
    return unmeasured(SpeedPoint, **place, speedup=speedup, low=low, high=high)


def test_equal_runs_are_held_against_each_other_point_by_point():
    first = [point(2.0, 1.9, 2.1), point(2.0, 1.9, 2.1), point(2.0, 1.9, 2.1), point(None)]
    second = [point(2.05, 1.95, 2.2), point(2.2, 2.05, 2.3), point(2.3, 2.2, 2.4), point(2.0, 1.9, 2.1)]
    counted = {"points": 3, "overlapping": 2, "inside_each_other": 1, "pairs": 6, "inside": 2}
    assert repeatability([first, second]) == counted
    assert repeatability([second, first]) == counted


def test_coverage_of_one():
    speed = [point(1.01, 0.99, 1.02), point(1.05, 1.01, 1.1), point(0.9, 0.8, 0.99), point(None)]
    assert null_coverage(speed) == {"points": 3, "covered": 1}


def test_command(finished, tiny, tmp_path):
    output = tmp_path / "repeat.json"
    models = ["--teacher", str(finished.folder / "teacher"), "--student", str(finished.folder / "student")]
    data = str(tiny.config.parent / "data")
    more = ["--task", "sst2", "--data.dir", data, "--trust-remote-code", "--record", str(output)]
    small = ["--repeats", "2", "--batch-sizes", "1", "--lengths", "16", "--seconds-per-point", "0.05"]
    done = warm.run([str(SCRIPT), *models, *more, *small])
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert [len(run) for run in record["runs"]] == [1, 1]
    assert record["repeatability"]["points"] == record["null"]["points"] == 1
    (null,) = record["null_run"]
    assert 0.2 < null["speedup"] < 5  # the same model twice, on a machine that may be busy
    assert "2 equal comparisons" in done.stdout


def test_what_compare_refuses_is_said_once(finished):
    teacher = str(finished.folder / "teacher")
    done = warm.run([str(SCRIPT), "--teacher", teacher, "--student", teacher, "--task", "sst"])
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "'sst2'" in done.stderr
