"""pipelines/export.py: what it refuses, in one line, without leaving a file."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.exported_students import call, make_place, outside

from students.attention.softmax import SoftmaxAttention


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("export"))


def only_error(said: str) -> str:
    """Return the one line beside warnings, which is an error."""
    (error,) = [line for line in said.splitlines() if not line.startswith("warning: ")]
    assert error.startswith("error: ")
    return error


def no_operator(self, query, key, value, mask):
    return torch.special.bessel_j0(value[:, :, : query.shape[2]])


def fixed_length(self, query, key, value, mask):
    return (value if key.shape[2] > 16 else key)[:, :, : query.shape[2]]


def looks_at_the_data(self, query, key, value, mask):
    return (key if mask is None or bool(mask.all()) else value)[:, :, : query.shape[2]]


def computes_something_else(self, query, key, value, mask):
    value = value[:, :, : query.shape[2]]
    return value + 0.01 if torch.compiler.is_compiling() else value


@pytest.mark.parametrize(
    ("attend", "words"),
    [
        (no_operator, "bessel_j0"),
        (fixed_length, "length"),
        (looks_at_the_data, "data-dependent"),
        (computes_something_else, "does not compute the same"),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(place, tmp_path, monkeypatch, capsys, attend, words):
    monkeypatch.setattr(SoftmaxAttention, "attend", attend)
    output = tmp_path / "student.onnx"
    output.write_text("an older file")
    assert call(monkeypatch, *outside(place, "softmax"), "--output", output, "--int8") == 2
    captured = capsys.readouterr()
    error = only_error(captured.err)
    assert error.startswith("error: attention 'softmax'")
    assert words in error
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]
    assert output.read_text() == "an older file"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--student", "nowhere", "--task", "sst2"), "does not exist"),
        (("--student", "data", "--task", "sst2"), "no config.json"),
        (("--student", "nowhere"), "--student nowhere does not exist; give the folder of a saved model"),
        (("--student", "run/nowhere"), "--student run/nowhere does not exist; give the folder of a saved model"),
        (("--student", "alone"), "--task is needed: the student lies in no run folder"),
        (("--student", "finished/teacher"), "--task is needed: finished/teacher is the teacher of the run "),
        (("--student", "finished/teacher"), "/finished, not its student; to export it give --task and --data.dir"),
        (("--student", "finished/baseline"), "finished/baseline is the baseline of the run "),
        (("--student", "finished/checkpoints/logits/student"), "logits/student is a model of the run "),
        (("--student", "unfinished/student"), "/unfinished is not finished; finish it, or give --task and --data.dir"),
        (("--student", "alone", "--task", "sst3"), "did you mean 'sst2'"),
        (("--student", "alone", "--task", "sst2", "--data.label_names", "a"), "custom"),
        (("--student", "alone", "--task", "mnli", "--data.dir", "data"), "mnli"),
        (("--student", "run/student", "--data.max_length", "33"), "32 positions"),
        (("--student", "run/student", "--data.max_length", "4"), "predictions.parquet"),
        (("--student", "teacher", "--run_dir", "run"), "the student of this run"),
        (("--student", "alone", "--run_dir", "data"), "record.json does not exist"),
        (("--student", "alone", "--format", "tflite"), "onnx"),
        (("--student", "run/student", "--format", "bert"), "is not BERT's at any length; use --format onnx"),
        (("--student", "softmax", "--format", "bert", "--int8"), "--int8 works only with --format onnx and openvino"),
        (("--student", "softmax", "--format", "bert", "--output", "teacher"), "no export to bert left there"),
        (("--student", "softmax", "--format", "bert", "--output", "run/config.yaml"), "is a file"),
        (
            (
                "--student",
                "exact",
                "--task",
                "sst2",
                "--data.dir",
                "data",
                "--data.max_length",
                "9",
                "--format",
                "bert",
            ),
            "exactly up to 8 tokens, and its texts have up to 9; give --data.max_length 8",
        ),
        (("--student", "alone", "--output", "data"), "is a folder"),
        (("--student", "alone", "--output", "run/config.yaml/student.onnx"), "cannot be created"),
        (("--student", "alone", "--format", "openvino"), "ends in .xml"),
        (("--student", "alone", "--output", "x.bin"), "--output x.bin: give the name of a file that ends in .onnx"),
        (("--student", "alone", "--output", "student"), "give the name of a file that ends in .onnx"),
        (("--student", "alone", "--output", "x.xml"), "give the name of a file that ends in .onnx"),
        (("--student", "alone", "--format", "openvino", "--output", "x.onnx"), "ends in .xml"),
    ],
)
def test_mistakes_are_one_line_and_code_2(place, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(place)
    shutil.copytree("run", "finished", dirs_exist_ok=True)
    for copy in ("finished/teacher", "finished/baseline", "finished/checkpoints/logits/student", "unfinished/student"):
        shutil.copytree("teacher", copy, dirs_exist_ok=True)
    Path("unfinished", "checkpoints").mkdir(exist_ok=True)
    shutil.copy("run/config.yaml", "unfinished/config.yaml")
    before = sorted(place.rglob("*"))
    assert call(monkeypatch, "--output", tmp_path / "student.onnx", *arguments) == 2
    assert words in only_error(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
    assert sorted(place.rglob("*")) == before
