"""Fewer layers, then fewer dimensions, heads and units, then the mechanism: a run whose student is narrower."""

import json
from pathlib import Path

import pytest
import torch
from helpers.small_students import logits_elsewhere
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from students import StudentForSequenceClassification

STAGES = """[
{name: depth, epochs: 1, learning_rate: 1.0e-3, attention: softmax, width: full, losses: {hidden_states: 1.0}},
{name: width, epochs: 1.5, learning_rate: 1.0e-3, attention: softmax,
 losses: {hidden_states: 1.0, attention_context: 1.0, query_relations: 1.0}},
{name: transfer, epochs: 1, learning_rate: 1.0e-3, targets: softmax_student, inputs: teacher, train: attention,
 losses: {attention_output: 1.0, attention_map: 1.0}},
{name: logits, epochs: 1, learning_rate: 1.0e-3, losses: {logits: 1.0, hidden_states: 0.1}}]""".replace("\n", " ")
SIZES = ["--student.hidden_size", "24", "--student.num_heads", "[1]", "--student.intermediate_size", "40"]
SAVED = {"hidden_size": 24, "num_attention_heads": 1, "head_size": 16, "intermediate_size": 40}


@pytest.fixture(scope="module")
def more(finished) -> list[str]:
    """What makes the tiny run narrow its student, from the teacher of the finished one."""
    teacher = ["--teacher.checkpoint", str(finished.folder / "teacher"), "--baseline.epochs", "1"]
    return [*teacher, "--comparison.lengths", "[]", *SIZES, "--stages", STAGES]


@pytest.fixture(scope="module")
def narrow(tiny, more, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("narrow") / "run"
    done = tiny.run(folder, *more)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_the_student_is_narrowed_where_the_stages_say_so(narrow):
    folder, output = narrow
    stages = {name: config_of(folder / "checkpoints" / name / "student") for name in ("depth", "width", "transfer")}
    assert (stages["depth"]["hidden_size"], stages["depth"]["num_attention_heads"]) == (32, 2)
    assert "head_size" not in stages["depth"]
    for name in ("width", "transfer"):
        assert {key: stages[name][key] for key in SAVED} == SAVED
    assert [stages[name]["attention"] for name in stages] == ["softmax", "softmax", "performer"]
    assert "24 of 32 hidden dimensions, 1 of 2 heads and 40 of 64 feed-forward units are kept" in output
    weights = load_file(folder / "student" / "model.safetensors")
    assert weights["bert.encoder.layer.0.attention.self.query.weight"].shape == (16, 24)
    assert weights["bert.encoder.layer.0.output.dense.weight"].shape == (24, 40)
    assert not [name for name in weights if "map" in name]


def test_what_each_stage_bought_is_in_the_record(narrow):
    record = json.loads((narrow[0] / "record.json").read_text())
    shapes = {stage["name"]: stage["shape"] for stage in record["stages"]}
    assert [shape["hidden_size"] for shape in shapes.values()] == [32, 24, 24, 24]
    assert [shape["num_heads"] for shape in shapes.values()] == [[2], [1], [1], [1]]
    assert [shape["intermediate_size"] for shape in shapes.values()] == [[64], [40], [40], [40]]
    assert shapes["logits"]["flops"] == record["models"]["student"]["flops"] == record["models"]["baseline"]["flops"]
    assert shapes["logits"]["parameters"] == record["models"]["student"]["parameters"]
    assert shapes["depth"]["parameters"] > shapes["width"]["parameters"]
    for stage in record["stages"]:
        assert stage["metrics"]["accuracy"] is not None
        assert stage["held_out"]
        assert all(layer["hidden_states"] <= 1 for layer in stage["fidelity"])


def test_it_loads_alone_and_here(narrow, tmp_path):
    (tmp_path / "students").mkdir()
    (tmp_path / "students" / "narrow").symlink_to(narrow[0] / "student")
    student = AutoModelForSequenceClassification.from_pretrained(narrow[0] / "student")
    assert isinstance(student, StudentForSequenceClassification)
    batch = {"input_ids": torch.arange(5, 15)[None], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    elsewhere = logits_elsewhere(batch, tmp_path)["narrow"]
    torch.testing.assert_close(elsewhere, student(**batch).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["checkpoints/depth/result.json", "checkpoints/width/step-*"])
def test_a_killed_run_narrows_in_the_same_way(moment, narrow, tiny, more, tmp_path, same_end):
    folder = tmp_path / "run"
    killed, errors = tiny.kill_when(tiny.start(folder, *more), folder, moment)
    assert killed, errors
    done = tiny.run(folder, *more)
    assert done.returncode == 0, done.stderr
    same_end(folder, narrow[0])


def test_stages_are_chosen_for_a_narrower_student(tiny, more, tmp_path):
    done = tiny.run(tmp_path / "run", *more[:-2], "--student.attention", "softmax", "--stages", "auto", "--check")
    assert done.returncode == 0, done.stderr
    lines = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert [name for name in lines if name in ("depth", "depth_logits", "width", "width_logits")] == [
        *("depth", "depth_logits", "width", "width_logits")
    ]
    two = ["--student.num_layers", "2", "--student.num_heads", "1"]
    deep = tiny.run(tmp_path / "run", *more[:-2], *two, "--stages", "auto", "--check")
    assert deep.returncode == 0, deep.stderr
    assert "as deep as the teacher, so that no stage of full width with attention softmax is needed" in deep.stdout
    lines = [line.split()[0] for line in deep.stdout.splitlines() if line]
    assert "depth" not in lines
    assert "width_logits" in lines
