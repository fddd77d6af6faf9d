"""pipelines/compare.py as people and CI jobs call it: what it prints, writes, and with which exit code it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
from helpers import warm
from helpers.records import SAMPLE, typed
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from distill.benchmark import suite
from distill.config.data_schema import DataConfig
from distill.data.splits import load_splits, resolve_task
from distill.evaluation.record import parse_record, read_record
from distill.export import alternatives
from distill.utils.cli import run
from pipelines import compare
from students import student_from_teacher

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "not", "plot"]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
QUICK = ["--lengths", "16", "--batch-sizes", "1", "--seconds-per-point", "0.05"]


def save(model, folder):
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)


def bert(num_labels, **size):
    torch.manual_seed(3)
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, num_labels=num_labels, **{**SIZE, **size})
    return BertForSequenceClassification(config)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Teacher, student, one with three labels, and a table of 40 texts, in one folder."""
    folder = tmp_path_factory.mktemp("compare")
    teacher = bert(2)
    teacher.classifier.weight.data *= 100  # far from even, so that both classes are predicted
    student, _ = student_from_teacher(teacher, layer_map=[0], attention="performer", num_features=8)
    save(teacher, folder / "teacher")
    save(student, folder / "student")
    save(bert(3), folder / "three")
    for split, count in (("train", 20), ("validation", 40)):
        lines = [f"{WORDS[5 + i % 5]} {WORDS[5 + i % 3]}\t{i % 2}" for i in range(count)]
        path = folder / "data" / "sst2" / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def command(place, *more, teacher="teacher", student="student", task="sst2"):
    models = ["--teacher", str(place / teacher), "--student", str(place / student)]
    return [*models, "--task", task, "--data.dir", str(place / "data"), "--data.max_length", "16", *more]


def call(monkeypatch, arguments):
    """Run the script in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        run(compare.main)
    return ended.value.code


@pytest.fixture
def without_rivals(monkeypatch):
    """Leave out what the whole command is tested with: memory (a process of its own) and the teacher in ONNX."""
    monkeypatch.setattr(suite, "measure_memory", lambda *models, **how: ())
    monkeypatch.setattr(alternatives, "measure_alternatives", lambda *models, **how: ())


def test_the_whole_command_from_another_folder(place, tmp_path):
    """The real script in a process of its own: JSON alone on stdout, every file written, the gate not met."""
    arguments = [*command(place, *QUICK), "--output", "out", "--format", "json", "--require", "speedup=1000"]
    done = warm.run([str(ROOT / "pipelines" / "compare.py"), *arguments], cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("not met: speedup at batch 1, 16 tokens")
    record = json.loads(done.stdout)
    assert parse_record(record) == read_record(tmp_path / "out")
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files >= {"record.json", "report.html", "report.md", "predictions.parquet", "plots/retention_speedup.png"}
    assert record["num_examples"] == 40
    assert record["models"]["student"]["attention"] == "performer"
    (point,) = record["speed"]
    product = point["depth_speedup"] * point["attention_speedup"]
    assert product == pytest.approx(point["speedup"], rel=1e-6)
    for alternative in record["alternatives"]:
        assert alternative["metrics"], alternative
        assert {point["length"] for point in alternative["speed"]} == {16, record["median_length"]}
        assert all(point["over_student"] for point in alternative["speed"])
    (memory,) = record["memory"]
    assert memory["teacher_mb"] is not None, memory
    assert memory["student_mb"] is not None, memory


def test_submission_for_the_server(without_rivals, place, monkeypatch, tmp_path):
    (place / "data" / "sst2" / "test.tsv").write_text("sentence\n" + "good film\n" * 30)
    assert call(monkeypatch, command(place, *QUICK, "--submission", str(tmp_path))) == 0
    for role in ("teacher", "student"):
        lines = (tmp_path / role / "SST-2.tsv").read_text().splitlines()
        assert lines[0] == "index\tprediction"
        assert [line.split("\t")[0] for line in lines[1:]] == [str(index) for index in range(30)]
        assert len({line.split("\t")[1] for line in lines[1:]}) == 1
    (place / "data" / "sst2" / "test.tsv").unlink()


@pytest.fixture
def quick_record(monkeypatch):
    """Answer the comparison itself from the sample, for tests of what stands around it."""
    record = typed(SAMPLE)
    monkeypatch.setattr(compare, "compare", lambda options: record)
    return record


@pytest.mark.parametrize(
    ("bars", "code"),
    [
        ("retention=0.95", 0),
        ("retention=0.96", 1),
        ("retention=0.95,speedup=1.1", 1),
        ("gain=0", 0),
        ("retention=0.95,gain=0.05", 1),
    ],
)
def test_gate(quick_record, place, monkeypatch, capsys, bars, code):
    assert call(monkeypatch, [*command(place), "--baseline", str(place / "student"), "--require", bars]) == code
    assert ("not met" in capsys.readouterr().err) == bool(code)


@pytest.mark.parametrize(("form", "start"), [("table", "The 3-layer"), ("md", "The 3-layer"), ("json", "{")])
def test_formats(quick_record, place, monkeypatch, capsys, form, start):
    assert call(monkeypatch, [*command(place), "--format", form]) == 0
    output = capsys.readouterr().out
    assert output.startswith(start)
    assert ("| model |" in output) == (form == "md")


@pytest.mark.parametrize("columns", [[], ["sentence"], ["[sentence]"], ["['sentence']"]])
def test_a_file_of_ones_own_has_the_same_validation_rows_as_its_run(without_rivals, place, tmp_path, capsys, columns):
    lines = [f"{WORDS[5 + i % 5]} {WORDS[5 + i % 3]}\t{i % 2}" for i in range(100)]
    (tmp_path / "mine.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    data = DataConfig(dir=str(tmp_path / "mine.tsv"), validation_fraction=0.3, seed=3)
    splits = load_splits(
        resolve_task("custom", data),
        source=data.dir,
        seed=data.seed,
        max_train_examples=50,
        held_out_fraction=0.1,
        validation_fraction=0.3,
    )
    own = ["--data.dir", data.dir, "--data.validation_fraction", "0.3", "--data.seed", "3"]
    named = ["--data.text_columns", *columns] if columns else []
    options = compare.parse(command(place, *QUICK, *own, *named, "--output", str(tmp_path / "out"), task="custom"))
    record = compare.compare(options)
    assert record.split == "validation"
    assert record.num_examples == 30
    assert ("columns found: texts 'sentence', label 'label'" in capsys.readouterr().err) == (columns == [])
    predictions = pandas.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert predictions["id"].tolist() == splits.validation["validation"].ids.tolist()


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({"student": "nowhere"}, [], "does not exist"),
        ({"student": "data"}, [], "no config.json"),
        ({"student": "three"}, [], "3 labels"),
        ({"task": "sst3"}, [], "did you mean 'sst2'"),
        ({"task": "cola"}, [], "cola"),
        ({"task": "custom"}, [], "no train.<"),
        ({}, ["--data.validation_fraction", "0.2"], "custom"),
        ({"task": "custom"}, ["--data.validation_fraction", "0.7"], "between 0 and 0.5"),
        ({}, ["--lenghts", "32"], "--lengths"),
        ({}, ["--lengths", "-3"], "positive"),
        ({}, ["--require", "speed=2"], "did you mean 'speedup'"),
        ({}, ["--require", "retain=.9"], "did you mean 'retention'"),
        ({}, ["--require", "gain=0"], "give --baseline DIR"),
        ({}, ["--data.label_names", "a", "b"], "custom"),
        ({}, ["--format", "xml"], "json"),
        ({}, ["--output", __file__], "cannot be created"),
        ({}, ["--data.max_length", "65"], "64 positions"),
        ({}, ["--submission", "unused"], "no test.<"),
        ({}, ["--submission", "unused", "--data.dir", "embedded"], "no test split"),
        ({}, ["--max-seconds", "0"], "max_seconds is 0.0: give a number above 0"),
    ],
)
def test_mistakes_are_one_line_and_code_2(place, monkeypatch, capsys, changes, more, words):
    assert call(monkeypatch, command(place, *QUICK, *more, **changes)) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error
    assert "Traceback" not in captured.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is said without a GPU needs a machine without one")
def test_a_gpu_that_is_not_there(place, monkeypatch, capsys):
    assert call(monkeypatch, command(place, "--device", "cuda")) == 2
    assert "no GPU" in capsys.readouterr().err


def test_help_and_mistakes_do_not_wait_for_torch():
    program = "import sys, pipelines.compare; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
