"""pipelines/export.py --format bert: a plain BERT that needs nothing of ours, or no folder."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from helpers.closeness import assert_close
from helpers.exported_students import SIZE, call, make_place, outside, write_run
from transformers import BertForSequenceClassification, BertTokenizer

from distill.evaluation.record import read_record
from distill.tasks import get_task
from distill.utils.errors import UserError
from pipelines.run import exports
from students import StudentConfig, StudentForSequenceClassification, plain_bert, student_from_teacher

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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("export"))


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


@pytest.mark.parametrize(
    ("settings", "reason", "helps"),
    [
        ({"attention": "softmax", "pooler_act": "gelu"}, "has gelu", False),
        ({"attention": "linear"}, "not BERT's", True),
    ],
)
def test_another_attention_is_named_as_a_way_out_where_it_is_one(settings, reason, helps):
    student = StudentForSequenceClassification(StudentConfig(**SIZE, **settings))
    with pytest.raises(UserError, match=reason) as refused:
        exports.prepare_form("bert", student, 16)
    assert "use --format onnx" in str(refused.value)
    assert ("--student.attention softmax" in str(refused.value)) == helps
