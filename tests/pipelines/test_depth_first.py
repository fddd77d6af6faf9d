"""Depth first, then linear: a softmax student of fewer layers is distilled; the mechanism takes over its weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

STAGES = """[
{name: depth, epochs: 1, learning_rate: 1.0e-3, attention: softmax, losses: {hidden_states: 1.0, logits: 1.0}},
{name: transfer, epochs: 1, learning_rate: 1.0e-3, targets: softmax_student, inputs: teacher, train: attention,
 losses: {attention_output: 1.0, attention_map: 1.0}},
{name: logits, epochs: 1.5, learning_rate: 1.0e-3, losses: {logits: 1.0}}]""".replace("\n", " ")


@pytest.fixture(scope="module")
def more(finished) -> list[str]:
    """What makes the tiny run go depth first, from the teacher of the finished one."""
    teacher = ["--teacher.checkpoint", str(finished.folder / "teacher"), "--baseline.epochs", "1"]
    return [*teacher, "--comparison.lengths", "[]", "--stages", STAGES]


@pytest.fixture(scope="module")
def undisturbed(tiny, more, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("depth_first") / "run"
    done = tiny.run(folder, *more)
    assert done.returncode == 0, done.stderr
    return folder


def student_of(folder: Path, stage: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return configuration and weights of what a stage left."""
    left = folder / "checkpoints" / stage / "student"
    return json.loads((left / "config.json").read_text()), load_file(left / "model.safetensors")


def test_the_mechanism_takes_over_the_weights_of_the_softmax_student(undisturbed):
    (before, softmax), (after, linear) = (student_of(undisturbed, stage) for stage in ("depth", "transfer"))
    assert (before["attention"], after["attention"]) == ("softmax", "performer")
    assert before["layer_map"] == after["layer_map"] == [0]
    assert after["features"] == "redrawn"
    kept = {name for name in softmax if ".attention." not in name}
    assert kept
    assert all(torch.equal(softmax[name], linear[name]) for name in kept)
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert 0 < (softmax[query] - linear[query]).abs().max() < 0.1


def test_the_last_student_is_the_mechanism_and_every_stage_is_in_the_record(undisturbed):
    record = json.loads((undisturbed / "record.json").read_text())
    epochs = [(stage["name"], stage["epochs"]) for stage in record["stages"]]
    assert epochs == [("depth", 1), ("transfer", 1), ("logits", 1.5)]
    assert json.loads((undisturbed / "student" / "config.json").read_text())["attention"] == "performer"


def test_the_softmax_student_is_an_alternative_as_its_stage_left_it(undisturbed):
    record = json.loads((undisturbed / "record.json").read_text())
    fp32, _, softmax = record["alternatives"]
    assert (fp32["name"], softmax["name"]) == ("teacher in ONNX Runtime fp32", "softmax student of the same depth")
    assert softmax["metrics"] == pytest.approx(record["stages"][0]["metrics"])
    assert fp32["metrics"] == pytest.approx(record["models"]["teacher"]["metrics"])


def test_a_killed_run_goes_on_where_the_attention_changes(undisturbed, tiny, more, tmp_path, same_end):
    folder = tmp_path / "run"
    killed, errors = tiny.kill_when(tiny.start(folder, *more), folder, "checkpoints/depth/result.json")
    assert killed, errors
    done = tiny.run(folder, *more)
    assert done.returncode == 0, done.stderr
    same_end(folder, undisturbed)


@pytest.fixture(scope="module")
def sharing(undisturbed, tiny, more, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run that leaves its softmax stage in a shared folder, and the options of such runs."""
    folder = tmp_path_factory.mktemp("sharing")
    options = [*more, "--cache.dir", str(folder / "cache")]
    done = tiny.run(folder / "run", *options)
    assert done.returncode == 0, done.stderr
    assert "taken from" not in done.stdout
    assert torch.equal(*(student_of(each, "depth")[1]["classifier.weight"] for each in (folder / "run", undisturbed)))
    return folder, options


def test_another_mechanism_takes_the_softmax_stage_of_the_first(sharing, tiny):
    folder, options = sharing
    done = tiny.run(folder / "other", *options, "--student.attention", "linear", "--student.features", "fixed")
    assert done.returncode == 0, done.stderr
    assert "depth: taken from" in done.stdout
    assert "transfer: taken" not in done.stdout
    (_, own), (_, other) = (student_of(folder / name, "depth") for name in ("run", "other"))
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    results = [(folder / name / "checkpoints/depth/result.json").read_text() for name in ("run", "other")]
    assert results[0] == results[1]
    assert json.loads((folder / "other/student/config.json").read_text())["attention"] == "linear"


@pytest.mark.parametrize("change", ["--seed=7", "--training.warmup=0.2"])
def test_what_decides_the_stage_decides_whether_it_is_taken(sharing, tiny, tmp_path, change):
    done = tiny.run(tmp_path / "run", *sharing[1], change)
    assert done.returncode == 0, done.stderr
    assert "depth: taken from" not in done.stdout


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("result.json", "{", "result.json is torn"),
        ("result.json", "[]", "it holds a list"),
        ("student/model.safetensors", "weights", "model.safetensors was changed since another run left it"),
    ],
)
def test_a_torn_shared_stage_is_named(file, content, expected, sharing, tiny, tmp_path):
    folder, options = sharing
    shutil.copytree(folder / "cache", tmp_path / "cache")
    shared = [path for path in (tmp_path / "cache" / "softmax_students").iterdir() if path.is_dir()]
    for each in shared:
        (each / file).write_text(content)
    done = tiny.run(tmp_path / "run", *options, "--cache.dir", str(tmp_path / "cache"))
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert any(f"remove {each} to have depth trained again" in done.stderr for each in shared)
    assert "Traceback" not in done.stderr


def test_a_student_as_deep_as_the_teacher_needs_no_softmax_stage(tiny, more, tmp_path):
    done = tiny.run(tmp_path / "run", *more, "--student.num_layers", "2")
    assert done.returncode == 0, done.stderr
    assert "as deep as the teacher" in done.stdout
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert [stage["name"] for stage in record["stages"]] == ["transfer", "logits"]
    assert "is finished" in tiny.run(tmp_path / "run", *more, "--student.num_layers", "2").stdout
