"""pipelines/sweep.py: a grid of runs, resumed, with failures listed, on one machine and as jobs of submitit."""

import csv
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from distill.sweeps import runner, schema
from distill.sweeps.summary import read_run, summarise
from distill.utils.cli import run
from distill.utils.errors import UserError
from pipelines import sweep as script

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import json, os, shutil, sys
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
with open("started", "a") as file:
    file.write(options["--run_dir"] + " " + os.environ.get("OMP_NUM_THREADS", "-") + "\\n")
if options["--seed"] == "13":
    sys.exit("error: the dataset is gone")
if options["--seed"] == "14":
    raise ValueError("odd shapes")
shutil.copytree("finished", options["--run_dir"], dirs_exist_ok=True)
record = json.load(open("finished/record.json")) | {"seed": int(options["--seed"])}
json.dump(record, open(options["--run_dir"] + "/record.json", "w"))
"""


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """Return a folder with a sweep whose runs copy a finished one instead of training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Path("finished").symlink_to(finished.folder)
    Path("run.py").write_text(RUN)
    Path("sst2.yaml").write_text("")
    Path("sweep.yaml").write_text(
        json.dumps(
            {
                "dir": "out",
                "configs": ["sst2.yaml"],
                "students": {"three": {"student.num_layers": 3}, "six": {}},
                "seeds": [1, 2],
                "launcher": [sys.executable, "run.py"],
            }
        )
    )
    return tmp_path


def call(monkeypatch, *more):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--config", "sweep.yaml", *more])
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    return ended.value.code


def started():
    return [line.split() for line in Path("started").read_text().splitlines()]


def test_the_whole_grid_and_then_nothing_is_left(place, monkeypatch, capsys):
    assert call(monkeypatch, "--workers", "2") == 0
    assert sorted(name for name, _ in started()) == [
        f"out/sst2-{student}-seed{seed}" for student in ("six", "three") for seed in (1, 2)
    ]
    assert {threads for _, threads in started()} == {str(max(1, os.cpu_count() // 2))}
    summary = json.loads(Path("out/summary.json").read_text())
    assert set(summary) == {"sst2-three", "sst2-six"}
    assert summary["sst2-three"]["seeds"] == [1, 2]
    assert summary["sst2-three"]["metrics"]["accuracy"]["retention"]["sd"] == 0
    rows = list(csv.DictReader(Path("out/leaderboard.csv").read_text().splitlines()))
    assert [(row["student"], row["num_seeds"]) for row in rows] == [("three", "2"), ("six", "2")]
    assert "leaderboard: out/leaderboard.html" in capsys.readouterr().out
    assert call(monkeypatch) == 0
    assert len(started()) == 4


def test_a_value_may_name_the_task_and_the_seed(place):
    more = ["--overrides", '{"teacher.checkpoint": "teachers/{task}-{seed}/teacher", "baseline.epochs": 0}']
    cell, other, *_ = schema.sweep_runs(schema.parse_sweep(["--config", "sweep.yaml", *more]))
    assert "teachers/sst2-1/teacher" in cell.command
    assert "teachers/sst2-2/teacher" in other.command
    assert cell.command[cell.command.index("--baseline.epochs") + 1] == "0"


def test_a_benchmark_joins_the_leaderboard_and_must_be_there_from_the_start(place, monkeypatch, capsys):
    assert call(monkeypatch, "--bench", "bench.json") == 2
    assert "bench names bench.json, which does not exist" in capsys.readouterr().err
    assert not Path("started").exists()
    row = {"attention": "performer", "claims": "linear", "time_exponent": 1.0, "memory_exponent": 1.0, "student": []}
    shape = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12}
    Path("bench.json").write_text(json.dumps({"student_shape": shape, "rows": [row]}))
    assert call(monkeypatch, "--bench", "bench.json") == 0
    assert "Speed and memory of a student of 6 layers" in Path("out/leaderboard.md").read_text()


def test_students_are_compared_with_the_reference_that_must_be_one_of_them(place, monkeypatch, capsys):
    assert call(monkeypatch, "--reference", "sixx") == 2
    assert "reference 'sixx' is none of the students; choose one of three, six" in capsys.readouterr().err
    assert not Path("started").exists()
    assert call(monkeypatch, "--reference", "six") == 0
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["sst2-three"]["over_reference"] == {"value": 0.0, "low": 0.0, "high": 0.0}  # the same run, copied
    assert "over_reference" not in summary["sst2-six"]
    assert "over the reference" in capsys.readouterr().out


def test_a_failed_run_is_listed_and_the_others_go_on(place, monkeypatch, capsys):
    assert call(monkeypatch, "--seeds", "[13, 14, 1]") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 4
    assert "sst2-three-seed13: the dataset is gone (exit code 1, log out/sst2-three-seed13.log)" in errors[0]
    assert "sst2-three-seed14: ValueError: odd shapes" in errors[1]
    page = Path("out/leaderboard.html").read_text()
    assert "the dataset is gone" in page
    assert set(json.loads(Path("out/summary.json").read_text())) == {"sst2-three", "sst2-six"}
    assert call(monkeypatch, "--seeds", "[13, 1]") == 1  # what failed is tried again, what is finished is not
    assert len(started()) == 6 + 2


def test_a_torn_record_is_one_line(place, monkeypatch, capsys):
    assert call(monkeypatch) == 0
    Path("out/sst2-three-seed1/record.json").write_text("{")
    Path("out/sst2-six-seed2/predictions.parquet").unlink()
    assert call(monkeypatch) == 1
    errors = capsys.readouterr().err
    assert "sst2-three-seed1: out/sst2-three-seed1/record.json is not whole JSON" in errors
    assert "predictions.parquet does not exist" in errors
    assert json.loads(Path("out/summary.json").read_text())["sst2-three"]["seeds"] == [2]


def test_a_run_that_outlived_its_sweep_is_waited_for(place):
    (cell, *_) = schema.sweep_runs(schema.parse_sweep(["--config", "sweep.yaml"]))
    cell.log.parent.mkdir()
    with open(cell.log, "ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        waiting = threading.Thread(target=runner.run_one, args=(cell,))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert not Path("started").exists()
        subprocess.run(cell.command, check=True)  # what the older process does meanwhile
    waiting.join(10)
    assert len(started()) == 1


def test_sigterm_ends_the_runs_too_and_starts_no_other(place):
    """The script alone gets the signal, and its runs would go on for days."""
    Path("run.py").write_text("import time; open('started', 'a').write('.'); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines" / "sweep.py"), "--config", "sweep.yaml"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not Path("started").exists():
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "stopped by SIGTERM; the same command goes on" in errors
    assert Path("started").read_text() == "."
    (board,) = Path().rglob("leaderboard.md")  # of what has been done
    assert board.read_text().startswith("# ")


def test_a_summary_of_one_real_run_says_what_its_record_says(finished):
    found = read_run(finished.folder)
    summary = summarise([found], resamples=200, seed=found.record.seed)
    kept = summary["metrics"]["accuracy"]["retention"]["mean_of_ratios"]
    expected = found.record.retention["accuracy"]
    assert kept == pytest.approx({"value": expected.value, "low": expected.low, "high": expected.high})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--workers", "0"], "workers is 0"),
        (["--engine", "slurm"], "choose one of local, submitit"),
        (["--students", "{}"], "students is empty"),
        (["--configs", "[nowhere.yaml]"], "nowhere.yaml, which does not exist"),
        (["--launcher", "[no-such-launcher]"], "'no-such-launcher' is not installed"),
        (["--workerz", "2"], "workerz"),
        (["--seeds", "[1, 2, 1]"], "seeds names 1 twice"),
        (["--configs", "[sst2.yaml, ./sst2.yaml]"], "configs names sst2 twice"),
        (["--overrides", "{seed: 3}"], "overrides sets seed"),
        (["--students", "{six: {run_dir: elsewhere}}"], "six sets run_dir"),
        (["--overrides.hub.repo", "me/a"], "hub.repo me/a would get every seed of three on sst2, one over the other"),
    ],
)
def test_mistakes_are_one_line_and_code_2(place, monkeypatch, capsys, more, words):
    assert call(monkeypatch, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: [1]\nseeds: [2]\n", "line 2: key 'seeds' stands twice"),
        ("overrides: {class_path: os.system}\n", "'class_path' is not accepted"),
        ("students:\n  a: {student.attention: lsh}\n  a: {}\n", "line 3: key 'a' stands twice"),
        (
            "students:\n  a: {student.attention: abc, student: {attention: lsh}}\n",
            "line 2: key 'students.a.student.attention' stands twice, in two spellings",
        ),
    ],
)
def test_a_sweeps_file_is_read_as_carefully_as_a_runs(place, monkeypatch, capsys, text, words):
    Path("more.yaml").write_text(text)
    assert call(monkeypatch, "--config", "more.yaml") == 2
    assert words in capsys.readouterr().err


def test_a_missing_engine_is_one_line(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="pip install submitit"):
        runner.make_runner(schema.parse_sweep(["--config", "sweep.yaml", "--engine", "submitit"]))


@pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed (pip install submitit)")
def test_two_workers_of_submitit(place, monkeypatch):
    options = ["--engine", "submitit", "--engine_options", "{cluster: local}", "--workers", "2"]
    assert call(monkeypatch, *options, "--seeds", "[1, 13]") == 1
    assert len(started()) == 4
    assert "the dataset is gone" in Path("out/leaderboard.md").read_text()
    assert set(json.loads(Path("out/summary.json").read_text())) == {"sst2-three", "sst2-six"}


@pytest.mark.parametrize("name", ["../up", "/etc/up", "a b", ""])
def test_a_student_whose_name_would_leave_the_folder_is_refused(name, tmp_path):
    (tmp_path / "sst2.yaml").write_text("")
    values = {"dir": "out", "configs": [str(tmp_path / "sst2.yaml")], "students": {name: {}}}
    (tmp_path / "sweep.yaml").write_text(json.dumps(values))
    with pytest.raises(UserError, match="the student's name"):
        schema.parse_sweep(["--config", str(tmp_path / "sweep.yaml")])
