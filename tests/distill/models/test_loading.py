"""Loading any two classifiers: what is refused, in one line, and what the control is."""

import json
import shutil

import pytest
import torch
from helpers.tiny_bert import tiny_bert
from transformers import (
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

import students
from distill.benchmark.model_copies import saved_copies
from distill.models.loading import load_classifier, load_comparable
from distill.tasks import get_task
from distill.utils.errors import UserError

SST2 = get_task("sst2")
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "fox", "!", ",", "3"]


def save(model, folder, words=WORDS):
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.fixture
def bert():
    return tiny_bert(vocab_size=len(WORDS), **SIZE)


@pytest.fixture
def student(bert):
    return students.student_from_teacher(bert, layer_map=[0], attention="performer", num_features=8)[0]


def error_of(action):
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_loads_what_was_saved(bert, tmp_path):
    loaded = load_classifier(save(bert, tmp_path / "bert"), "teacher")
    assert not loaded.model.training
    assert torch.equal(loaded.model.classifier.weight, bert.classifier.weight)


def test_our_student_loads_without_trust_and_without_its_own_code(student, tmp_path):
    folder = save(student, tmp_path / "student")
    for path in folder.glob("*.py"):
        path.write_text("raise SystemExit('this code must not run')")
    loaded = load_classifier(folder, "student")
    assert type(loaded.model) is students.StudentForSequenceClassification
    with saved_copies({"student": loaded.model}) as folders:
        assert "must not run" not in (folders["student"] / "modeling.py").read_text()
    assert not folders["student"].exists()


def test_foreign_code_needs_the_flag(student, tmp_path):
    folder = save(student, tmp_path / "foreign")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "unheard_of"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "--trust-remote-code" in error_of(lambda: load_classifier(folder, "student"))


def test_other_architectures_load(tmp_path):
    config = DistilBertConfig(vocab_size=len(WORDS), dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    folder = save(DistilBertForSequenceClassification(config), tmp_path / "distilbert")
    assert load_classifier(folder, "student").model.config.num_hidden_layers == 1


@pytest.mark.parametrize("kind", ["absent", "empty", "torn", "headless", "bad config", "no tokenizer"])
def test_what_is_no_whole_classifier_is_refused(bert, tmp_path, kind):
    folder = tmp_path / "model"
    if kind == "empty":
        folder.mkdir()
    elif kind == "headless":
        save(BertModel(bert.config), folder)
    elif kind != "absent":
        save(bert, folder)
    if kind == "torn":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    if kind == "bad config":
        (folder / "config.json").write_text("{")
    if kind == "no tokenizer":
        for path in folder.glob("*token*"):
            path.unlink()
        (folder / "vocab.txt").unlink(missing_ok=True)
    message = error_of(lambda: load_classifier(folder, "teacher"))
    assert message.startswith(f"--teacher {folder}")
    assert {"absent": "does not exist", "empty": "no config.json", "headless": "classifier"}.get(kind, "") in message


def test_tokenizers_must_agree_but_the_teachers(bert, tmp_path):
    save(bert, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    save(bert, tmp_path / "other", [*WORDS[:-2], "3", ","])
    same = {"teacher": str(tmp_path / "one"), "student": str(tmp_path / "same"), "baseline": None}
    assert list(load_comparable(same, SST2)) == ["teacher", "student"]
    other = same | {"teacher": str(tmp_path / "other"), "baseline": str(tmp_path / "one")}
    assert list(load_comparable(other, SST2)) == ["teacher", "student", "baseline"]
    other = same | {"baseline": str(tmp_path / "other")}
    assert "--student and --baseline have different tokenizers" in error_of(lambda: load_comparable(other, SST2))


def test_weights_lie_where_torch_puts_them(bert, tmp_path):
    model = load_classifier(save(bert, tmp_path / "it"), "student").model
    assert not any(tensor.data_ptr() % 64 for tensor in (*model.parameters(), *model.buffers()))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), bert.parameters(), strict=True))
