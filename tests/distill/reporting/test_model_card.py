"""The model card: its evaluation results read back, and miniature data never passes for the real set."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.records import sample_json, typed
from helpers.small_students import student
from huggingface_hub import ModelCard

from distill.data.tokenization import train_tokenizer
from distill.reporting.base_model import BaseModel, describe_base_model
from distill.reporting.model_card import write_model_card
from distill.tasks import TASKS, custom_task
from distill.utils.errors import UserError


@pytest.fixture
def record():
    return sample_json()


def test_results_read_back(record, tmp_path):
    card = ModelCard.load(write_model_card(typed(record), tmp_path))
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.8933)
    assert (result.dataset_type, result.dataset_config, result.dataset_split) == ("nyu-mll/glue", "sst2", "validation")
    assert card.data.to_dict()["library_name"] == "transformers"
    assert card.data.datasets == ["nyu-mll/glue"]


@pytest.mark.parametrize("source", ["embedded", "/data/glue"])
def test_only_hub_data_is_named_as_hub_data(record, tmp_path, source):
    path = write_model_card(typed(record), tmp_path, source=source)
    card = ModelCard.load(path)
    assert card.data.to_dict().get("datasets") is None
    assert "nyu-mll" not in path.read_text()
    assert "/data/glue" not in path.read_text()
    assert ("miniature" in card.data.eval_results[0].dataset_name) == (source == "embedded")


def test_two_splits_stay_apart(record, tmp_path):
    record |= {"task": "mnli", "split": "validation_matched"}
    record["models"]["student"]["metrics"] = {"accuracy": 0.8, "accuracy_mismatched": 0.79}
    results = ModelCard.load(write_model_card(typed(record), tmp_path)).data.eval_results
    assert {(result.dataset_split, result.metric_value) for result in results} == {
        ("validation_matched", 0.8),
        ("validation_mismatched", 0.79),
    }


def test_a_null_metric_is_not_a_result(record, tmp_path):
    record["models"]["student"]["metrics"]["f1"] = None
    results = ModelCard.load(write_model_card(typed(record), tmp_path)).data.eval_results
    assert [result.metric_type for result in results] == ["accuracy"]


def test_custom_task_and_verdict(record, tmp_path):
    record["task"] = "custom"
    text = write_model_card(typed(record), tmp_path, source="mine").read_text()
    assert "keeps 97.5 % [95.9, 99.1] of its teacher's accuracy" in text
    assert "trust_remote_code=True" in text


NAMES = ("negative", "positive")
PAIR = custom_task(("first", "second"), "label", ("a", "b"), regression=False)
SETS = custom_task(("first",), "label", ("a", "b", "c"), regression=False, multi_label=True)
SCORES = custom_task(("first",), "label", None, regression=True)


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """Saved students with a tokenizer, of two classes, of one score and of three labels."""
    folder = tmp_path_factory.mktemp("students")
    for name, options in (
        ("classes", {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}),
        ("scores", {"num_labels": 1, "problem_type": "regression"}),
        ("sets", {"num_labels": 3, "problem_type": "multi_label_classification", "threshold": 0.01}),
    ):
        tokenizer = train_tokenizer(["a text and its pair"] * 3, 60)
        student(vocab_size=len(tokenizer), **options).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def example_of(card: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(), flags=re.DOTALL)
    return code


@pytest.mark.parametrize(
    ("name", "task", "labels"),
    [
        ("classes", TASKS["sst2"], ("negative", "positive")),
        ("classes", PAIR, ("negative", "positive")),
        ("scores", SCORES, ()),
        ("sets", SETS, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
    ids=["text", "pair", "score", "labels"],
)
def test_the_example_runs_as_written(record, students, tmp_path, name, task, labels):
    """In a process without this repository; standard input is closed, so that a question for consent would fail."""
    card = write_model_card(typed(record), students / name, task=task)
    code = example_of(card)
    assert code.count("trust_remote_code") == 1
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=students,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "custom code" not in done.stdout + done.stderr
    answer = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    if task.multi_label:
        assert "threshold = 0.01 " in code
        assert set(answer) == set(labels), "every probability of an untrained model reaches 0.01"
        return
    (answer,) = answer if isinstance(answer, list) else [answer]
    assert set(answer) == {"label", "score"}
    assert not labels or answer["label"] in labels


def test_labels_data_and_limits(record, students):
    record |= {
        "task": "custom",
        "source": "folder",
        "data_name": "mine.csv",
        "never_answered": {"student": ["negative"]},
    }
    text = write_model_card(typed(record), students / "classes", source="/data/mine.csv", task=PAIR).read_text()
    assert "* 0: negative\n* 1: positive" in text
    assert "the training split of mine.csv, read from a folder. Text: first, second." in text
    assert "It never answers negative." in text
    assert "at most 24 tokens" in text
    assert "trained from scratch" in text


@pytest.mark.parametrize("licence", ["apache-2.0", None])
def test_base_model_and_licence(record, students, tmp_path, licence):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text(json.dumps({"_name_or_path": "output/checkpoint-500"}))
    named = f"license: {licence}\n" if licence else ""
    (encoder / "README.md").write_text(f"---\nbase_model: somebody/encoder\n{named}---\n# Encoder\n")
    base = describe_base_model(str(encoder))
    assert base == BaseModel("somebody/encoder", "somebody/encoder", licence)
    path = write_model_card(typed(record), students / "classes", base=base)
    text = path.read_text()
    data = ModelCard.load(path).data.to_dict()
    assert (data["base_model"], data.get("license")) == ("somebody/encoder", licence)
    assert f"Licence of the base model: {licence or 'unknown'}" in text
    assert str(tmp_path) not in text


def test_a_student_made_of_another_encoder_than_its_teacher_names_both(record, students):
    base = BaseModel("somebody/encoder", "somebody/encoder", "mit", taught_by=BaseModel("big/one", "big/one", None))
    path = write_model_card(typed(record), students / "classes", base=base)
    text, data = path.read_text(), ModelCard.load(path).data.to_dict()
    assert (data["base_model"], data["license"]) == ("somebody/encoder", "mit")
    assert "somebody/encoder: the student is made of its layers" in text
    assert "The teacher is another model, big/one" in text
    assert "Licence of that one: unknown" in text


def test_a_folder_that_names_no_origin_is_named_without_its_path(tmp_path):
    (tmp_path / "encoder").mkdir()
    assert describe_base_model(str(tmp_path / "encoder")) == BaseModel("encoder", None, None)
    assert describe_base_model("nobody/has-this") == BaseModel("nobody/has-this", "nobody/has-this", None)
    assert describe_base_model(None) is None


def test_no_place_to_write(record, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the model card"):
        write_model_card(typed(record), tmp_path / "file")
