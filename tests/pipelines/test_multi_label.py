"""A whole run on texts with any number of labels, from the table to the student in use."""

import json

import numpy as np
import pandas
import pytest
import torch
from helpers.families import tiny_classifier, tiny_tokenizer
from helpers.in_process import QUICK, call, compare_again
from helpers.tiny_teachers import tiny_teacher
from helpers.topics import NAMES, write_topics
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.evaluation.metrics import compute_metrics
from distill.evaluation.record import read_record
from distill.sweeps.summary import read_run, summarise
from pipelines import compare, export
from pipelines.run.api import load_student, predict

SETTINGS = {
    "task": "custom",
    "data.multi_label": "true",
    "data.max_train_examples": "null",
    "teacher.epochs": "12",
    "teacher.learning_rate": "3e-3",
    "teacher.margin_over_majority": "0.2",
    "comparison.lengths": "[]",
}


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """Return the folder of a finished run and the table it was run on."""
    folder = tmp_path_factory.mktemp("topics")
    table = write_topics(folder, "bars", 900)
    options = [f"--{key}={value}" for key, value in SETTINGS.items()]
    done = tiny.run(folder / "run", *options, f"--data.dir={table}")
    assert done.returncode == 0, done.stderr
    return folder / "run", table, done.stdout


@pytest.mark.slow
def test_a_run_leaves_a_student_of_label_sets(finished, monkeypatch, capsys):
    folder, table, output = finished
    record = read_record(folder)
    assert (record.main_metric, set(record.retention)) == ("micro_f1", {"micro_f1", "macro_f1"})
    assert record.models.teacher.metrics["micro_f1"] > 0.5, "with every label for every text it is 0.44"
    assert "no label" in output, "the banner counts rows without any"
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {str(index): name for index, name in enumerate(NAMES)}
    assert config["threshold"] == record.models.student.threshold
    predicted = pandas.read_parquet(folder / "predictions.parquet")
    task = read_run(folder).task
    labels = np.stack(predicted["label"])
    for role in ("teacher", "student", "baseline"):
        threshold = json.loads((folder / role / "config.json").read_text())["threshold"]
        assert threshold == record.models[role].threshold == predicted[f"{role}_threshold"].iloc[0]
        found = compute_metrics(task, np.stack(predicted[f"{role}_logits"]), labels, threshold)
        assert record.models[role].metrics == pytest.approx(found)
    assert {entry.name for entry in record.alternatives if entry.metrics} >= {"teacher in ONNX Runtime int8"}
    assert "Answers per label" in (folder / "report.md").read_text()
    assert (folder / "plots" / "labels.png").exists()
    assert 'function_to_apply="sigmoid"' in (folder / "student" / "README.md").read_text()
    summary = summarise([read_run(folder), read_run(folder)], resamples=50)
    assert summary["metrics"]["micro_f1"]["student"]["mean"] == record.models.student.metrics["micro_f1"]

    answers = predict(load_student(folder), list(pandas.read_csv(table, keep_default_na=False)["text"][:20]))
    assert all(set(answer.labels) <= set(NAMES) for answer in answers)
    assert any(answer.labels for answer in answers)

    data = ("--task", "custom", "--data.dir", table, "--data.multi_label", "--data.max_length", "32")
    models = ("--teacher", folder / "teacher", "--student", folder / "student")
    again = compare_again(monkeypatch, capsys, *models, *data)
    assert again["models"]["student"]["metrics"] == pytest.approx(record.models.student.metrics)
    assert call(monkeypatch, compare.main, *models, *data[:4]) == 2
    assert capsys.readouterr().err.startswith("error: data.label_column: ")

    onnx = folder.parent / "student.onnx"
    assert call(monkeypatch, export.main, "--student", folder / "student", "--output", onnx, *QUICK) == 0
    meaning = json.loads((folder.parent / "student.labels.json").read_text())
    assert meaning == {"labels": list(NAMES), "threshold": record.models.student.threshold}
    deployed = read_record(folder).deployments[0]
    assert deployed.metrics == pytest.approx(record.models.student.metrics)


@pytest.mark.slow
def test_a_finished_run_and_its_teacher_are_taken_again(finished, tiny, tmp_path):
    folder, table, _ = finished
    options = [f"--{key}={value}" for key, value in SETTINGS.items()]
    done = tiny.run(folder, *options, f"--data.dir={table}")
    assert (done.returncode, "is finished" in done.stdout) == (0, True), done.stderr
    teacher = f"--teacher.checkpoint={folder / 'teacher'}"
    done = tiny.run(tmp_path / "run", *options, f"--data.dir={table}", teacher, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_teacher_and_a_start_of_two_other_families(tiny, tmp_path, monkeypatch, capsys):
    """A DeBERTa is fine-tuned on label sets and teaches a student that is made of a RoBERTa and reads its tokens."""
    table = write_topics(tmp_path, "bars", 320)
    texts = list(pandas.read_csv(table)["text"])
    tiny_teacher("deberta-v2", texts, tmp_path / "deberta", head=False, spread=0.1)
    tokenizer = tiny_tokenizer("roberta", texts, 400)
    encoder = tiny_classifier("roberta", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3).base_model
    for each in (encoder, tokenizer):
        each.save_pretrained(tmp_path / "roberta")
    stages = "[{name: both, epochs: 1, learning_rate: 1.0e-3, losses: {hidden_states: 1.0, logits: 1.0}}]"
    settings = {"teacher.epochs": "1", "teacher.margin_over_majority": "-1", "stages": stages}
    settings |= {"teacher.checkpoint": tmp_path / "deberta", "student.checkpoint": tmp_path / "roberta"}
    options = [f"--{key}={value}" for key, value in (SETTINGS | settings).items()]
    done = tiny.run(tmp_path / "run", *options, f"--data.dir={table}")
    assert done.returncode == 0, done.stderr
    folder, record = tmp_path / "run", read_record(tmp_path / "run")
    predicted = pandas.read_parquet(folder / "predictions.parquet")
    rows = list(pandas.read_csv(table)["text"][predicted["id"][:6]])
    for role, words in (("teacher", "deberta"), ("student", "roberta"), ("baseline", "roberta")):
        model = AutoModelForSequenceClassification.from_pretrained(folder / role).eval()
        reader = AutoTokenizer.from_pretrained(folder / role)
        assert len(reader) == len(AutoTokenizer.from_pretrained(tmp_path / words))
        assert model.config.problem_type == "multi_label_classification"
        assert model.config.threshold == record.models[role].threshold
        with torch.no_grad():
            inputs = [reader(text, truncation=True, max_length=32, return_tensors="pt") for text in rows]
            logits = torch.cat([model(**each).logits for each in inputs])
        np.testing.assert_allclose(logits, np.stack(predicted[f"{role}_logits"][:6]), rtol=1e-3, atol=1e-4)
    data = ("--task", "custom", "--data.dir", table, "--data.multi_label", "--data.max_length", "32")
    again = compare_again(monkeypatch, capsys, "--teacher", folder / "teacher", "--student", folder / "student", *data)
    for role in ("teacher", "student"):
        assert again["models"][role]["metrics"] == pytest.approx(record.models[role].metrics)
