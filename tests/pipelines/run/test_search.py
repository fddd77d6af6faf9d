"""A run whose student is asked for by its speed: what it tries, takes, writes down, and how it goes on when killed."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
import yaml
from accelerate.state import AcceleratorState

from distill.benchmark.latency_table import LatencyTable, LayerCost
from distill.config.parsing import load_config as read_config
from distill.config.shape_search import ShapeSearch, StudentShape, TriedShape, read_search, search_file
from pipelines.run import phases, search, shape_speeds
from pipelines.run.api import UserError, distill, load_config

SPEEDS = {"1x32x64": 3.0, "2x16x32": 2.5, "1x16x32": 4.9}


class KilledError(Exception):
    """In place of a signal."""


@pytest.fixture(scope="module", autouse=True)
def made_up():
    """Let a layer of 16 take 0.16 of the teacher's time, one of 32 0.3: two narrow ones, or a wide one, reach 2.4."""

    def measure_table(teacher, build, kinds, num_layers, *conditions):
        assert (teacher.config.num_hidden_layers, num_layers) == (2, 2)
        for kind in kinds:
            assert build(kind).config.hidden_size == kind.hidden_size
        shares = {32: 0.3, 16: 0.16}
        costs = [LayerCost(kind, 0.04 + shares[kind.hidden_size], shares[kind.hidden_size]) for kind in kinds]
        return LatencyTable(num_layers, tuple(costs))

    def measure_speedup(teacher, student, conditions, length, seconds):
        config = student.config
        assert (config.attention, length) == ("performer", 16)
        speed = SPEEDS[f"{config.num_hidden_layers}x{config.hidden_size}x{config.intermediate_size}"]
        return speed, 0.9 * speed, 1.1 * speed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_speeds, "measure_table", measure_table)
        patch.setattr(shape_speeds, "measure_speedup", measure_speedup)
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def asked(finished, tiny):
    """Return a function that configures the tiny run with its finished teacher and a student twice as fast."""

    def configure(run_dir, **overrides):
        given = {"teacher.checkpoint": str(finished.folder / "teacher"), "student.target_speedup": 2.4}
        given |= {"student.target_length": 16, "baseline.epochs": 0, "comparison.lengths": [], "run_dir": str(run_dir)}
        return load_config(tiny.config, given | overrides)

    return configure


@pytest.fixture(scope="module")
def searched(asked, tmp_path_factory):
    """Run it to the end once, and return its folder and what it printed."""
    folder, said = tmp_path_factory.mktemp("search") / "run", io.StringIO()
    with redirect_stdout(said):
        distill(asked(folder, **{"cache.dir": str(folder.parent / "cache")}))
    return folder, said.getvalue()


def ends(*arguments):
    raise KilledError


def killed(config, target, name, instead):
    """Start the run and let it end where a function of it is called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, instead)
        with pytest.raises(KilledError):
            distill(config)


def scores(run_dir):
    """Return what a run tried, without its times."""
    return [replace(each, seconds=None) for each in read_search(run_dir).tried]


def test_the_nearest_of_the_shapes_that_are_fast_enough_becomes_the_student(searched):
    folder, said = searched
    found = read_search(folder)
    assert [each.shape.name for each in found.tried] == ["1x32x64", "2x16x32"]
    assert (found.predicted, found.promising, found.length) == (4, 3, 16)
    assert found.chosen == min(found.tried, key=lambda each: each.divergence).shape
    assert all(0 <= each.agreement <= 1 and each.seconds > 0 for each in found.tried)
    assert "Shapes tried for 2.4× the teacher's speed at 16 tokens" in said
    assert (
        "vary too much here to tell whether 2.4 is reached by 2 layers of width 16 with 32 feed-forward units (2.5"
        in said
    )
    assert "short runs of 2 of them, about" in said
    assert f"student: {found.chosen.in_words}" in said

    kept = yaml.safe_load((folder / "config.yaml").read_text())["student"]
    sizes = (kept["num_layers"], kept["hidden_size"], kept["intermediate_size"], kept["num_heads"])
    assert StudentShape(*sizes) == found.chosen
    assert (kept["target_speedup"], kept["target_length"]) == (None, None)
    student = json.loads((folder / "student" / "config.json").read_text())
    assert (student["num_hidden_layers"], student["hidden_size"]) == sizes[:2]
    record = json.loads((folder / "record.json").read_text())
    assert record["search"] == json.loads(search_file(folder).read_text())
    assert "taken" in (folder / "report.md").read_text()
    assert not list(folder.glob("checkpoints/search/*x*")), "weights of short runs are removed"
    assert len(list(folder.parent.glob("cache/latency/*.json"))) == 1


def test_a_finished_run_is_finished_by_either_command_and_has_one_speed(asked, searched, capsys):
    folder, _ = searched
    for config in (asked(folder), replace(read_config(folder / "config.yaml"), run_dir=str(folder))):
        distill(config)
        assert "is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"belongs to another configuration \(different: .*student\.target_speedup"):
        distill(asked(folder, **{"student.target_speedup": 2.0}))


def test_a_killed_search_goes_on_with_the_scores_that_it_has(asked, searched, tmp_path, monkeypatch):
    folder, run_dir = searched[0], tmp_path / "run"
    tried, real = [], search.try_shape

    def second_time_ends(context, setup, shape):
        tried.append(shape.name)
        return ends() if len(tried) == 2 else real(context, setup, shape)

    killed(asked(run_dir), search, "try_shape", second_time_ends)
    assert read_search(run_dir).chosen is None
    assert read_config(run_dir / "config.yaml").student.target_speedup == 2.4
    killed(asked(run_dir, **{"comparison.dtype": "bfloat16"}), shape_speeds, "measure_table", ends)  # asks anew
    monkeypatch.setattr(shape_speeds, "measure_table", ends)  # would end the run sooner: speed is measured once
    monkeypatch.setattr(search, "try_shape", second_time_ends)
    killed(asked(run_dir), search, "update_config", ends)  # the shape is found, and not yet in config.yaml
    assert tried == ["1x32x64", "2x16x32", "2x16x32"]
    assert scores(run_dir) == scores(folder)
    killed(asked(run_dir), phases, "run_stages", ends)
    assert len(tried) == 3
    assert read_config(run_dir / "config.yaml").student == read_config(folder / "config.yaml").student


def test_a_speed_that_no_shape_has_is_refused_with_the_fastest(asked, tmp_path):
    with pytest.raises(UserError) as refused:
        distill(asked(tmp_path / "run", **{"student.target_speedup": 9.0}))
    assert str(refused.value) == (
        "student.target_speedup is 9: no shape reaches it at 16 tokens; the fastest measured, 1 layer of width 16 "
        "with 32 feed-forward units, is 4.90 times as fast as the teacher [4.41, 5.39]; give less than that, or "
        "longer texts as student.target_length"
    )
    assert not (tmp_path / "run").exists()


def test_a_speed_that_a_busy_machine_leaves_open_is_not_called_out_of_reach():
    tried = (TriedShape(StudentShape(1, 16, 32, 1), 2.41, 0.30, 19.58),)
    found = ShapeSearch(4.0, None, 16, "cpu", "float32", 4, 0, tried)
    assert search.why_none(found) == (
        "student.target_speedup is 4: whether a shape reaches it cannot be told here at 16 tokens; the fastest "
        "measured, 1 layer of width 16 with 32 feed-forward units, is 2.41 times as fast as the teacher "
        "[0.30, 19.58]; give more comparison.seconds_per_point, or a machine without other work"
    )
    told = replace(found, target_speedup=2.0, tried=(replace(tried[0], low=2.3, high=2.5),))
    assert not list(search.open_speeds(told))
    assert list(search.open_speeds(replace(told, target_speedup=2.35))) == [
        "warning: timings vary too much here to tell whether 2.35 is reached by 1 layer of width 16 with 32 "
        "feed-forward units (2.41 times as fast as the teacher [2.30, 2.50]); the measured ratio decides; to tell, "
        "give more comparison.seconds_per_point, or a machine without other work"
    ]
