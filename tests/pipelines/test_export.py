"""pipelines/export.py: which files it leaves, what they compute, and what it writes down."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.closeness import assert_close
from helpers.exported_students import SIZE, call, make_place, outside
from tokenizers import Tokenizer
from transformers import BertTokenizer

from distill.benchmark import timing
from distill.data.splits import load_splits
from distill.data.tokenization import tokenize
from distill.evaluation.record import read_record
from distill.export import deployment as deployments
from distill.export import onnx as onnx_export
from distill.export.deployment_speed import measure_latency
from distill.export.formats import FORMATS
from distill.tasks import get_task
from distill.utils.errors import UserError
from pipelines.run import exports
from students import ATTENTIONS, StudentConfig, StudentForSequenceClassification

ROOT = Path(__file__).resolve().parents[2]
# Few positions: what unrolls over the length, as lion's segments, takes the exporter long to trace.
ONE_LAYER = SIZE | {"vocab_size": 60, "max_position_embeddings": 16}
FILES = {"student.onnx", "student.int8.onnx", "student.tokenizer.json", "student.labels.json"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("export"))


def answers(path, input_ids, attention_mask):
    """What a user of the file gets, without any code of ours."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": np.zeros_like(input_ids)}
    return session.run(None, inputs)[0]


def test_a_run_gets_its_deployments(place, tmp_path, monkeypatch, capsys):
    """Both files, the record, the report; a second export replaces its own entry and leaves the other."""
    before = read_record(place / "run")
    output = tmp_path / "new" / "student.onnx"
    assert call(monkeypatch, "--student", place / "run" / "student", "--output", output, "--int8") == 0
    assert "student.int8.onnx" in capsys.readouterr().out
    assert {path.name for path in output.parent.iterdir()} == FILES
    record = read_record(place / "run")
    assert replace(record, deployments=()) == before
    full, int8 = record.deployments
    assert (full.dtype, int8.dtype) == ("float32", "int8")
    assert (full.file, int8.file) == ("student.onnx", "student.int8.onnx")
    assert full.parity < 1e-4 < int8.parity < 1
    assert full.metrics == record.models.student.metrics
    assert full.retention["accuracy"].value == full.agreement == 1
    assert full.teacher_retention["accuracy"].value == record.retention["accuracy"].value
    assert full.fp32_layers is None
    assert isinstance(int8.fp32_layers, tuple)
    assert full.megabytes == output.stat().st_size / 1e6 > int8.megabytes > 0
    for entry in (full, int8):
        assert [point.threads for point in entry.speed] == sorted({1, torch.get_num_threads()})
        for point in entry.speed:
            assert (point.batch_size, point.length, point.dtype) == (1, 16, entry.dtype)
            assert point.speedup == pytest.approx(point.student_ms / point.deployed_ms)
        assert entry.environment["onnxruntime"] == onnxruntime.__version__
    for name in ("report.md", "report.html"):
        assert "student.int8.onnx" in (place / "run" / name).read_text()
    assert call(monkeypatch, "--student", place / "run" / "student", "--output", output) == 0
    assert [entry.dtype for entry in read_record(place / "run").deployments] == ["int8", "float32"]


@pytest.fixture(scope="module")
def exported(place, tmp_path_factory):
    """The performer student, exported outside of a run, with its int8 copy."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call(monkeypatch, *outside(place), "--output", folder / "student.onnx", "--int8") == 0
    return folder


def test_int8_is_judged_on_what_the_run_held_out(place, tmp_path, monkeypatch, capsys):
    """Of all rows of train another part would be held out, among them rows that the student was trained on."""
    run, judges = tmp_path / "run", []
    shutil.copytree(place / "run", run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("max_length: 16", "max_length: 16, max_train_examples: 10"))

    def look(options, output, source, validation, expected, judge):
        judges.append(judge.held_out)
        raise UserError("seen")

    monkeypatch.setattr(exports, "deploy", look)
    assert call(monkeypatch, "--student", run / "student", "--output", tmp_path / "it.onnx", "--int8") == 2
    assert "seen" in capsys.readouterr().err
    few = load_splits(
        get_task("sst2"), source=str(place / "data"), seed=0, max_train_examples=10, held_out_fraction=0.05
    )
    expected = tokenize(few.held_out, BertTokenizer.from_pretrained(run / "student"), 16)
    assert judges[0].token_ids.tolist() == expected.token_ids.tolist()


def test_files_outside_a_run(exported):
    assert {path.name for path in exported.iterdir()} == FILES | {"student.json"}
    figures = json.loads((exported / "student.json").read_text())
    full, int8 = figures["deployments"]
    assert full["metrics"] == figures["models"]["student"]["metrics"]
    assert full["parity"] < 1e-4 < int8["parity"]


def test_the_example_on_the_page_prints_a_label(place, exported):
    """As it stands in pipelines/README.md, in a process that has neither torch nor this repository."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "pipelines" / "README.md").read_text(), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    refused = "import sys; sys.modules |= dict.fromkeys(('torch', 'transformers', 'students', 'distill'))\n"
    done = subprocess.run(
        [sys.executable, "-c", refused + code], cwd=exported, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    model = StudentForSequenceClassification.from_pretrained(place / "alone").eval()
    (text,) = re.findall(r'encode\("(.*?)"\)  #', code)
    inputs = BertTokenizer.from_pretrained(place / "alone")(text, return_tensors="pt")
    with torch.no_grad():
        expected = int(model(**inputs).logits.argmax())
    assert done.stdout.strip() == get_task("sst2").label_names[expected]  # the student itself names none


def test_the_tokenizer_cuts_at_the_positions(exported):
    tokenizer = Tokenizer.from_file(str(exported / "student.tokenizer.json"))
    assert len(tokenizer.encode("good " * 100).ids) == SIZE["max_position_embeddings"]
    assert len(tokenizer.encode("good").ids) == 3


@pytest.mark.parametrize(("batch_size", "length", "padding"), [(1, 1, 0), (1, 32, 0), (3, 5, 2), (40, 17, 16)])
def test_any_shape_agrees(place, exported, batch_size, length, padding):
    model = StudentForSequenceClassification.from_pretrained(place / "alone").eval()
    ids = torch.randint(5, 10, (batch_size, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[1:, length - padding :] = 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits.numpy()
    assert_close(answers(exported / "student.onnx", ids.numpy(), mask.numpy()), expected)


def test_the_file_is_valid_and_names_nothing_of_this_machine(exported):
    assert b".py" not in (exported / "student.onnx").read_bytes()
    model = onnx.load(exported / "student.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {**{name: ["batch", "length"] for name in onnx_export.MODEL_INPUTS}, "logits": ["batch", 2]}


def test_linear_maps_and_embeddings_alone_are_int8(exported):
    weights = onnx.load(exported / "student.int8.onnx").graph.initializer
    kinds = [each.data_type for each in weights if len(each.dims) == 2]
    assert kinds.count(onnx.TensorProto.INT8) == 8  # six linear maps of the layer, pooler, classifier
    assert kinds.count(onnx.TensorProto.UINT8) == 3  # embeddings
    features = [each for each in weights if each.data_type == onnx.TensorProto.FLOAT and list(each.dims) == [8, 8]]
    assert len(features) == 1


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_mechanism_exports_or_says_why(name, make_examples, tmp_path):
    """An exported file agrees with torch; a refusal names the mechanism; neither leaves anything else."""
    torch.manual_seed(0)
    options = ATTENTIONS[name].small_options
    config = StudentConfig(attention=name, attention_options=options, num_features=8, num_hidden_layers=1, **ONE_LAYER)
    student = StudentForSequenceClassification(config).eval()
    validation = {"validation": make_examples(24)}
    expected = deployments.predict_validation(student, validation)
    refusal = None
    try:
        (deployment,) = deployments.deploy_file(student, tmp_path / "it.onnx", FORMATS["onnx"], validation, expected)
    except UserError as error:
        refusal = str(error)
    assert [path.name for path in tmp_path.iterdir()] == ([] if refusal else ["it.onnx"])
    if refusal:
        assert f"attention {name!r}" in refusal
    else:
        assert deployments.largest_difference(expected, deployment.logits) < 1e-4


def test_answers_that_are_no_numbers_do_not_agree():
    numbers, broken = {"validation": np.zeros((2, 2))}, {"validation": np.array([[0, 0], [0, np.nan]])}
    deployments.check_parity(numbers, numbers, "softmax")
    with pytest.raises(UserError, match="differ by nan"):
        deployments.check_parity(numbers, broken, "softmax")


class Broken(torch.nn.Module):
    """A deployment that runs out of memory from 8 tokens on."""

    def forward(self, input_ids, attention_mask, token_type_ids):
        if input_ids.shape[1] >= 8:
            raise MemoryError


def test_points_that_cannot_be_measured_are_null_with_a_reason(place):
    student = StudentForSequenceClassification.from_pretrained(place / "alone")
    grid = [(1, 4), (1, 8), (1, 40)]
    points = measure_latency(student, {"float32": Broken}, grid, 0.02)["float32"][:3]
    assert [point.reason for point in points] == [
        None,
        "out of memory",
        "longer than the student has positions",
    ]
    assert [point.speedup is None for point in points] == [False, True, True]
    assert points[0].pairs >= timing.MIN_ROUNDS
