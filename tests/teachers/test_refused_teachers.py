"""Every way in which a teacher's folder can be wrong: one line that names it, and nothing in it ever runs."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, MPNetConfig, MPNetModel

from distill.data.tokenization import train_tokenizer
from distill.tasks import get_task
from distill.utils.errors import UserError
from students import student_from_teacher
from teachers.loading import (
    load_teacher,
)

SST2, MNLI, STSB = get_task("sst2"), get_task("mnli"), get_task("stsb")


def refusal(folder, task=SST2) -> str:
    """Return the message with which a teacher is refused."""
    with pytest.raises(UserError) as refused:
        load_teacher(str(folder), task)
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_missing_folder(tmp_path):
    assert "no readable folder or Hub name" in refusal(tmp_path / "nowhere")


def test_folder_without_a_configuration(tmp_path):
    assert "no readable folder:" in refusal(tmp_path)


def test_layers_of_another_kind(tokenizer, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    MPNetModel(MPNetConfig(vocab_size=60, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "is a 'mpnet', whose attention has a bias that no student has: those of bert, roberta" in message
    assert "name a BERT-like encoder for the student as student.checkpoint" in message


def test_a_student_is_no_teacher(make_bert, tokenizer, tmp_path):
    student_from_teacher(make_bert(), layer_map=[0], attention="performer")[0].save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "is a student; give the teacher that it was distilled from" in refusal(tmp_path)


@pytest.mark.parametrize("task", [MNLI, STSB])
def test_label_count_of_another_task(task, finished):
    assert f"has 2 labels but task {task.name} has {task.num_labels}" in refusal(finished, task)


@pytest.mark.parametrize("kind", ["finished", "encoder"])
def test_torn_weights(kind, request):
    folder = request.getfixturevalue(kind)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot read the weights" in refusal(folder)


@pytest.mark.parametrize("kind", ["finished", "encoder"])
@pytest.mark.parametrize("missing", ["encoder.layer.1.output.dense.weight", "embeddings.word_embeddings.weight"])
def test_a_weight_that_is_missing(kind, missing, request):
    folder = request.getfixturevalue(kind)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(missing)}
    assert len(kept) == len(weights) - 1
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert f"is torn: 1 weights such as bert.{missing} are missing" in refusal(folder)


def test_a_finished_classifier_without_its_head(finished):
    weights = load_file(finished / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(kept, finished / "model.safetensors", metadata={"format": "pt"})
    assert "2 weights such as classifier.bias are missing" in refusal(finished)


def test_no_weights(finished):
    (finished / "model.safetensors").unlink()
    assert "cannot read the weights" in refusal(finished)


def test_weights_of_another_shape(finished):
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    assert "of another size" in refusal(finished)


def test_no_tokenizer(finished):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (finished / name).unlink()
    assert len(AutoTokenizer.from_pretrained(finished)) == 5  # transformers says nothing
    assert "no tokenizer" in refusal(finished)


def test_a_tokenizer_larger_than_the_vocabulary(finished):
    train_tokenizer(
        [" ".join(f"word{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(9))], 300
    ).save_pretrained(finished)
    entries = len(AutoTokenizer.from_pretrained(finished))
    assert f"has {entries} entries but the model knows 60" in refusal(finished)


class Spy:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_pickle(folder: Path, more: dict) -> None:
    """Replace the weights by a file as torch.save writes it."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights | more, folder / "pytorch_model.bin")


def test_weights_as_a_pickle_are_read_when_they_are_tensors_alone(finished):
    expected = load_teacher(str(finished), SST2).model.state_dict()
    write_pickle(finished, {})
    loaded = load_teacher(str(finished), SST2).model.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in loaded.items())


def test_a_pickle_that_holds_more_than_tensors_is_refused_and_does_nothing(finished, tmp_path):
    write_pickle(finished, {"spy": Spy(tmp_path / "made")})
    assert "a pickle that holds more than tensors; save them as safetensors" in refusal(finished)
    assert not (tmp_path / "made").exists()


def test_code_in_a_teacher_never_runs(finished, tmp_path, monkeypatch):
    """Not even asked about, which would stop a run that nobody watches."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    config = json.loads((finished / "config.json").read_text())
    code = {"AutoConfig": "spy.Spy", "AutoModelForSequenceClassification": "spy.Spy"}
    (finished / "config.json").write_text(json.dumps(config | {"auto_map": code, "model_type": "spy"}))
    (finished / "spy.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'made')!r})\nclass Spy: pass\n")
    assert "it brings code of its own; give a BERT checkpoint" in refusal(finished)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "change", [{"hidden_size": "16"}, {"num_attention_heads": 0}, {"hidden_act": "swoosh"}, {"id2label": ["a", "b"]}]
)
def test_a_configuration_that_cannot_be_is_refused(finished, change):
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(config | change))
    assert str(finished) in refusal(finished)


@pytest.mark.parametrize("content", ["null", "[]", "{}", "5", "\0"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_json_that_is_something_else_is_refused(finished, file, content):
    (finished / file).write_text(content)
    if (file, content) != ("tokenizer_config.json", "{}"):  # that one may be empty
        assert str(finished) in refusal(finished)
