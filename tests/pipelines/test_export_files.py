"""What an export leaves beside other files, what it leaves of older ones, and what it does before it starts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.closeness import assert_close
from helpers.exported_students import SIZE, call, make_place, outside

from distill.data.batching import subset
from distill.export import deployment as deployments
from distill.export import formats
from distill.export.companions import write_companions
from distill.export.formats import FORMATS
from distill.utils.errors import UserError
from pipelines import export
from pipelines.run import exports
from students import StudentConfig, StudentForSequenceClassification

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("export"))


def test_what_stops_int8_leaves_the_older_files(place, tmp_path, monkeypatch):
    """Looking for layers takes minutes; files of two students must not stand beside each other if it is cut short."""
    older = {tmp_path / "student.onnx": "older", tmp_path / "student.int8.onnx": "older int8"}
    for path, text in older.items():
        path.write_text(text)

    def stop(path, folder, texts, form):
        raise UserError("stopped")

    monkeypatch.setattr(deployments, "choose_fp32_layers", stop)
    assert call(monkeypatch, *outside(place, "softmax"), "--output", tmp_path / "student.onnx", "--int8") == 2
    assert {path: path.read_text() for path in tmp_path.iterdir()} == older


def test_no_file_has_the_labels_of_another_student_beside_it(tmp_path):
    """Killed between the companions and the file, an export of another student leaves no file at all."""
    output, labels = tmp_path / "it.onnx", tmp_path / "it.labels.json"
    write_companions({labels: "[]"}, [output])
    output.write_bytes(b"of the first student")
    write_companions({labels: "[]"}, [output])
    assert output.exists(), "the same labels: the same kind of student"
    write_companions({labels: '["other"]'}, [output])
    assert not output.exists()
    assert labels.read_text() == '["other"]'


def test_files_of_another_format_go_with_their_labels_too(make_examples, tmp_path):
    """They share tokenizer and labels; the weights of an OpenVINO graph are a file of their own."""
    others = ["it.xml", "it.bin", "it.int8.xml", "it.int8.bin", "it.int8.onnx"]
    for name in [*others, "else.xml"]:
        (tmp_path / name).write_text("of another student")
    torch.manual_seed(0)
    model = StudentForSequenceClassification(StudentConfig(num_hidden_layers=1, **SIZE, attention="softmax")).eval()
    validation = {"validation": subset(make_examples(60), np.arange(4))}
    validation["validation"].token_ids[:] %= SIZE["vocab_size"]
    expected = deployments.predict_validation(model, validation)
    beside = {tmp_path / "it.labels.json": '["other"]'}
    deployments.deploy_file(model, tmp_path / "it.onnx", FORMATS["onnx"], validation, expected, beside=beside)
    assert {path.name for path in tmp_path.iterdir()} == {"else.xml", "it.onnx", "it.labels.json"}


def test_weights_that_no_export_left_are_not_replaced(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "pytorch_model.bin").write_text("somebody's weights")
    output = tmp_path / "pytorch_model.xml"
    assert call(monkeypatch, *outside(place), "--format", "openvino", "--output", output) == 2
    assert "pytorch_model.bin stands there already; remove it, or give another name" in capsys.readouterr().err
    assert (tmp_path / "pytorch_model.bin").read_text() == "somebody's weights"


def test_figures_of_another_format_stay_where_their_file_does(tmp_path):
    """Of the same student alone: another one's would stand below metrics that are not its own."""

    def figures(*files, student="a"):
        return {"models": {"student": student}, "deployments": [{"file": file} for file in files]}

    for name in ("s.onnx", "s.int8.onnx", "s.xml"):
        (tmp_path / name).write_text("it")
    export.write_figures(tmp_path / "s.onnx", "onnx", figures("s.onnx", "s.int8.onnx", "s.int8.xml"))
    export.write_figures(tmp_path / "s.xml", "openvino", figures("s.xml"))
    written = json.loads((tmp_path / "s.json").read_text())
    assert written == figures("s.onnx", "s.int8.onnx", "s.xml")
    export.write_figures(tmp_path / "s.onnx", "onnx", figures("s.onnx", student="b"))
    assert json.loads((tmp_path / "s.json").read_text()) == figures("s.onnx", student="b")


@pytest.mark.parametrize(
    ("form", "missing", "words"),
    [
        ("onnx", "onnxscript", "not installed: onnxscript; pip install -r requirements.txt"),
        ("openvino", "nncf", "--format openvino needs nncf; pip install openvino nncf"),
    ],
)
def test_missing_packages_are_named(place, tmp_path, monkeypatch, capsys, form, missing, words):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == missing else name)
    assert (
        call(monkeypatch, *outside(place), "--format", form, "--output", tmp_path / f"student{FORMATS[form].suffix}")
        == 2
    )
    assert words in capsys.readouterr().err


def test_help_and_mistakes_do_not_wait_for_torch():
    program = "import sys, pipelines.export; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_a_student_that_always_attends_exactly_has_no_condition_in_its_file():
    """It has no more positions than it attends exactly; one with more asks for the length of each text."""
    for exact_up_to, always in ((32, True), (31, False)):
        torch.manual_seed(0)
        config = StudentConfig(
            attention="performer", num_features=8, exact_up_to=exact_up_to, num_hidden_layers=1, **SIZE
        )
        model = StudentForSequenceClassification(config).eval()
        form = exports.prepare_form("onnx", model, 16)
        assert (form.config.attention == "softmax") is always
        inputs = {"input_ids": torch.arange(5, 10)[None]}
        with torch.no_grad():
            assert_close(form(**inputs).logits, model(**inputs).logits)
