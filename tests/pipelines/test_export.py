"""pipelines/export.py: which files it leaves and what they compute, what it writes down, and what it refuses."""

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
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from distill.benchmark import timing
from distill.benchmark.conditions import Models
from distill.config.schema import ComparisonConfig
from distill.data.splits import load_splits
from distill.data.tokenization import tokenize
from distill.evaluation.comparison import ComparisonSetup, compare_models
from distill.evaluation.predictions_file import write_predictions
from distill.evaluation.record import read_record, write_record
from distill.export import deployment as deployments
from distill.export import onnx as onnx_export
from distill.export.alternatives import measure_alternatives
from distill.export.companions import write_companions
from distill.tasks import get_task
from distill.utils.cli import run
from distill.utils.errors import UserError
from pipelines import export
from pipelines.run import exports
from students import ATTENTIONS, StudentConfig, StudentForSequenceClassification, plain_bert, student_from_teacher
from students.attention.softmax import SoftmaxAttention

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "not", "plot"]
SIZE = {"vocab_size": len(WORDS), "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
SIZE |= {"max_position_embeddings": 32, "initializer_range": 0.5}
# Few positions: what unrolls over the length, as lion's segments, takes the exporter long to trace.
ONE_LAYER = SIZE | {"vocab_size": 60, "max_position_embeddings": 16}
CONFIG = """
task: sst2
data: {{dir: {data}, max_length: 16}}
stages: [{{name: logits, epochs: 1, learning_rate: 1.0e-3, losses: {{logits: 1.0}}}}]
"""
FILES = {"student.onnx", "student.int8.onnx", "student.tokenizer.json", "student.labels.json"}
QUICK = ["--lengths", "16", "--batch-sizes", "1", "--seconds-per-point", "0.02"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A teacher, a run with its performer student, the same student elsewhere, and 40 texts of 3 to 14 tokens."""
    folder = tmp_path_factory.mktemp("export")
    for split, count in (("train", 20), ("validation", 40)):
        lines = [" ".join(WORDS[5 + (i + j) % 5] for j in range(1 + i % 12)) + f"\t{i % 2}" for i in range(count)]
        path = folder / "data" / "sst2" / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    torch.manual_seed(3)
    teacher = BertForSequenceClassification(BertConfig(num_hidden_layers=2, num_labels=2, **SIZE)).eval()
    student, _ = student_from_teacher(teacher, layer_map=[0], attention="performer", num_features=8)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    models = {"teacher": teacher, "run/student": student.eval(), "alone": student, "softmax": None}
    models["softmax"], _ = student_from_teacher(teacher, layer_map=[1], attention="softmax")
    models["exact"], _ = student_from_teacher(teacher, layer_map=[1], attention="abc", num_features=4, exact_up_to=8)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    write_run(folder, teacher, student, tokenizer)
    return folder


def write_run(folder, teacher, student, tokenizer, run=None):
    """Leave what a finished run leaves, but for the training."""
    run = run or folder / "run"
    task, data = get_task("sst2"), str(folder / "data")
    splits = load_splits(task, source=data, seed=0, max_train_examples=None, held_out_fraction=0.05)
    validation = {name: tokenize(part, tokenizer, 16) for name, part in splits.validation.items()}
    setup = ComparisonSetup(task, validation, ComparisonConfig(lengths=[], resamples=50), "cpu")
    record, frame = compare_models(setup, Models(teacher, student), measure_alternatives)
    write_record(record, run / "record.json")
    write_predictions(frame, run / "predictions.parquet")
    (run / "config.yaml").write_text(CONFIG.format(data=data))


def call(monkeypatch, *arguments):
    """Run the script in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments), *QUICK])
    with pytest.raises(SystemExit) as ended:
        run(export.main)
    return ended.value.code


def outside(place, student="alone"):
    return ("--student", place / student, "--task", "sst2", "--data.dir", place / "data", "--data.max_length", "16")


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
    assert full.megabytes == output.stat().st_size / 1e6 > int8.megabytes > 0
    for entry in (full, int8):
        (point,) = entry.speed
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
        (deployment,) = deployments.deploy_onnx(student, tmp_path / "it.onnx", validation, expected, int8=False)
    except UserError as error:
        refusal = str(error)
    assert [path.name for path in tmp_path.iterdir()] == ([] if refusal else ["it.onnx"])
    if refusal:
        assert f"attention {name!r}" in refusal
    else:
        assert deployments.largest_difference(expected, deployment.logits) < 1e-4


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
    (error,) = [line for line in captured.err.splitlines() if not line.startswith("warning: ")]
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
        (("--student", "alone"), "--task is needed"),
        (("--student", "alone", "--task", "sst3"), "did you mean 'sst2'"),
        (("--student", "alone", "--task", "sst2", "--data.label_names", "a"), "custom"),
        (("--student", "alone", "--task", "mnli", "--data.dir", "data"), "mnli"),
        (("--student", "run/student", "--data.max_length", "33"), "32 positions"),
        (("--student", "run/student", "--data.max_length", "4"), "predictions.parquet"),
        (("--student", "teacher", "--run_dir", "run"), "the student of this run"),
        (("--student", "alone", "--run_dir", "data"), "record.json does not exist"),
        (("--student", "alone", "--format", "tflite"), "onnx"),
        (("--student", "run/student", "--format", "bert"), "is not BERT's at any length; use --format onnx"),
        (("--student", "softmax", "--format", "bert", "--int8"), "--int8 works only with --format onnx"),
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
    ],
)
def test_mistakes_are_one_line_and_code_2(place, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert call(monkeypatch, "--output", tmp_path / "student.onnx", *arguments) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert error.startswith("error: ")
    assert words in error
    assert list(tmp_path.iterdir()) == []
    assert sorted(place.rglob("*")) == before


PLAIN = """
import json, sys
from pathlib import Path
sys.modules |= dict.fromkeys(("students", "distill"))
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, pipeline
folder = sys.argv[1]
model, tokenizer = BertForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
texts = ["good", "good film not bad plot", "plot " * 40]
logits = model.eval()(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
answers = pipeline("text-classification", folder)(texts, truncation=True)
print(json.dumps({"logits": logits.tolist(), "labels": [answer["label"] for answer in answers]}))
"""


@pytest.mark.parametrize(("student", "positions"), [("softmax", 32), ("exact", 8)])
def test_a_bert_folder_needs_nothing_of_ours(place, tmp_path, monkeypatch, student, positions):
    """transformers alone loads it, without trust in any code, and answers as the student does."""
    output = tmp_path / "served"
    arguments = [*outside(place, student)[:-1], min(16, positions), "--format", "bert", "--output", output]
    for _ in range(2):  # the second one replaces the first
        assert call(monkeypatch, *arguments) == 0
    assert not list(output.rglob("*.py"))
    config = json.loads((output / "config.json").read_text())
    assert (config["model_type"], config["max_position_embeddings"]) == ("bert", positions)
    assert "auto_map" not in config
    assert len({path.stat().st_mode for path in output.iterdir()}) == 1, "a server may read all or nothing"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, "served"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    model = StudentForSequenceClassification.from_pretrained(place / student).eval()
    texts = ["good", "good film not bad plot", "plot " * 40]
    tokenizer = BertTokenizer.from_pretrained(place / student, model_max_length=positions)
    with torch.no_grad():
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        expected = model(**inputs).logits
    assert_close(torch.tensor(got["logits"]), expected)
    names = get_task("sst2").label_names
    assert got["labels"] == [names[index] for index in expected.argmax(-1).tolist()]
    card = (output / "README.md").read_text()
    assert "trust_remote_code" not in card
    assert f"up to {positions} tokens" in card
    provenance = json.loads((output / "export.json").read_text())
    assert provenance["student"] == student
    assert provenance["parity"] == provenance["deployments"][0]["parity"] < 1e-5
    assert str(place) not in card + json.dumps(provenance)


def test_a_run_gets_its_bert(place, tmp_path, monkeypatch, capsys):
    """The figures go into record and report, the card of the folder is the run's; a rival there is not replaced."""
    folder = tmp_path / "run"
    shutil.copytree(place / "run", folder)
    teacher = BertForSequenceClassification.from_pretrained(place / "teacher").eval()
    student, _ = student_from_teacher(teacher, layer_map=[0], attention="softmax")
    tokenizer = BertTokenizer.from_pretrained(place / "teacher")
    student.eval().save_pretrained(folder / "student")
    write_run(place, teacher, student, tokenizer, folder)
    output = tmp_path / "served"
    assert call(monkeypatch, "--student", folder / "student", "--format", "bert", "--output", output) == 0
    (entry,) = [entry for entry in read_record(folder).deployments if entry.format == "bert"]
    assert (entry.file, entry.dtype) == ("served", "float32")
    assert entry.metrics == read_record(folder).models.student.metrics
    assert entry.megabytes == sum(path.stat().st_size for path in output.iterdir()) / 1e6
    assert entry.speed[0].speedup > 0
    assert "served" in (folder / "report.html").read_text()
    assert "eval_results" in (output / "README.md").read_text() or "model-index" in (output / "README.md").read_text()
    (output / "mine.txt").write_text("beside an export a user's own file")
    (output / "export.json").unlink()
    assert call(monkeypatch, "--student", folder / "student", "--format", "bert", "--output", output) == 2
    assert "no export to bert left there" in capsys.readouterr().err
    assert (output / "mine.txt").exists()


def test_a_bert_that_answers_otherwise_leaves_no_folder(place, tmp_path, monkeypatch, capsys):
    def other(model):
        bert = plain_bert(model)
        with torch.no_grad():
            bert.classifier.bias[0] += 0.01
        return bert

    monkeypatch.setattr(exports, "plain_bert", other)
    output = tmp_path / "served"
    assert call(monkeypatch, *outside(place, "softmax"), "--format", "bert", "--output", output) == 2
    assert "does not compute the same in BERT: logits differ by 0.01" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_answers_that_are_no_numbers_do_not_agree():
    numbers, broken = {"validation": np.zeros((2, 2))}, {"validation": np.array([[0, 0], [0, np.nan]])}
    deployments.check_parity(numbers, numbers, "softmax")
    with pytest.raises(UserError, match="differ by nan"):
        deployments.check_parity(numbers, broken, "softmax")


def test_missing_packages_are_named(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert call(monkeypatch, *outside(place), "--output", tmp_path / "student.onnx") == 2
    assert "not installed: onnxscript; pip install -r requirements.txt" in capsys.readouterr().err


class Broken(torch.nn.Module):
    """A deployment that runs out of memory from 8 tokens on."""

    def forward(self, input_ids, attention_mask, token_type_ids):
        if input_ids.shape[1] >= 8:
            raise MemoryError


def test_points_that_cannot_be_measured_are_null_with_a_reason(place):
    student = StudentForSequenceClassification.from_pretrained(place / "alone")
    points = deployments.measure_latency(student, {"float32": Broken()}, [(1, 4), (1, 8), (1, 40)], 0.02)["float32"]
    assert [point.reason for point in points] == [
        None,
        "out of memory",
        "longer than the student has positions",
    ]
    assert [point.speedup is None for point in points] == [False, True, True]
    assert points[0].pairs >= timing.MIN_ROUNDS


def test_help_and_mistakes_do_not_wait_for_torch():
    program = "import sys, pipelines.export; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
