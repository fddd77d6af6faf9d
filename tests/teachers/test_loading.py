"""What a teacher may be, and every way in which its folder can be wrong."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel, MPNetConfig, MPNetModel

from distill.config.schema import ScratchConfig
from distill.data.tokenization import train_tokenizer
from distill.tasks import get_task
from distill.utils.errors import UserError
from students import student_from_teacher
from teachers.loading import (
    freeze,
    is_classifier,
    load_teacher,
    settings_checksum,
    teacher_from_scratch,
    weights_checksum,
)

SST2, MNLI, STSB = get_task("sst2"), get_task("mnli"), get_task("stsb")
TEXTS = ["a good film", "a bad film", "no plot at all"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 55)


@pytest.fixture
def finished(make_bert, tokenizer, tmp_path):
    """A folder with a finished classifier of two labels."""
    make_bert().save_pretrained(tmp_path / "finished")
    tokenizer.save_pretrained(tmp_path / "finished")
    return tmp_path / "finished"


@pytest.fixture
def encoder(make_bert, tokenizer, tmp_path):
    """A folder with an encoder that has neither classifier nor pooler, as masked language models are saved."""
    model = BertModel(make_bert().config, add_pooling_layer=False)
    model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def refusal(folder, task=SST2) -> str:
    """Return the message with which a teacher is refused."""
    with pytest.raises(UserError) as refused:
        load_teacher(str(folder), task)
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_a_finished_classifier_is_taken_as_it_is(finished, make_bert):
    teacher = load_teacher(str(finished), SST2)
    assert teacher.is_trained
    assert is_classifier(str(finished))
    expected = make_bert().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in teacher.model.state_dict().items())
    assert teacher.tokenizer("a good film")["input_ids"] == train_tokenizer(TEXTS, 55)("a good film")["input_ids"]


def test_an_encoder_gets_a_head_of_the_task(encoder):
    teacher = load_teacher(str(encoder), MNLI, seed=3)
    assert not teacher.is_trained
    assert not is_classifier(str(encoder))
    assert teacher.model.classifier.out_features == 3
    assert teacher.model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    again, other = (load_teacher(str(encoder), MNLI, seed=seed).model.classifier.weight for seed in (3, 4))
    assert torch.equal(teacher.model.classifier.weight, again)
    assert not torch.equal(again, other)


def test_an_encoder_becomes_a_regression(encoder):
    config = load_teacher(str(encoder), STSB).model.config
    assert (config.num_labels, config.problem_type) == (1, "regression")


def test_weights_are_read_in_full_precision(make_bert, tokenizer, tmp_path):
    make_bert().half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_teacher(str(tmp_path), SST2).model.parameters()} == {torch.float32}


def test_from_scratch():
    size = ScratchConfig(num_layers=2, hidden_size=32, num_heads=2, intermediate_size=64, vocabulary_size=50)
    teacher, again, other = (teacher_from_scratch(size, SST2, TEXTS, 200, seed) for seed in (0, 0, 1))
    assert not teacher.is_trained
    config = teacher.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.max_position_embeddings) == (2, 32, 200)
    assert config.vocab_size == len(teacher.tokenizer) <= 50
    assert config.id2label == {0: "negative", 1: "positive"}
    weights = [model.model.bert.pooler.dense.weight for model in (teacher, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_new_pooler_is_drawn_from_the_seed_and_all_else_stays(make_bert, tokenizer, tmp_path):
    make_bert().bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    own, first, again, other = (
        load_teacher(str(tmp_path), SST2, seed, new_pooler=new).model.state_dict()
        for seed, new in ((0, False), (0, True), (0, True), (1, True))
    )
    pooler = "bert.pooler.dense.weight"
    changed = {name for name in own if "classifier" not in name and not torch.equal(own[name], first[name])}
    assert changed <= {pooler, "bert.pooler.dense.bias"}
    assert torch.equal(first[pooler], again[pooler])
    assert not torch.equal(first[pooler], own[pooler])
    assert not torch.equal(first[pooler], other[pooler])
    assert first["bert.pooler.dense.bias"].count_nonzero() == 0


def test_a_finished_classifier_keeps_its_pooler(finished, make_bert):
    kept = load_teacher(str(finished), SST2, new_pooler=True).model
    assert torch.equal(kept.bert.pooler.dense.weight, make_bert().bert.pooler.dense.weight)


def test_a_frozen_teacher(make_bert):
    teacher = freeze(make_bert().train())
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


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


def test_what_was_loaded_is_saved_as_a_finished_teacher(encoder, tmp_path):
    teacher = load_teacher(str(encoder), SST2)
    teacher.model.save_pretrained(tmp_path / "saved")
    teacher.tokenizer.save_pretrained(tmp_path / "saved")
    again = load_teacher(str(tmp_path / "saved"), SST2)
    assert again.is_trained
    assert isinstance(again.model, BertForSequenceClassification)
    assert torch.equal(again.model.classifier.weight, teacher.model.classifier.weight)


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


def test_the_checksum_is_that_of_the_weights(encoder):
    before = weights_checksum(str(encoder))
    (encoder / "README.md").write_text("other words")
    assert weights_checksum(str(encoder)) == before
    path = encoder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert weights_checksum(str(encoder)) != before
    assert weights_checksum("bert-base-uncased") == "bert-base-uncased"


def test_what_decides_answers_beside_the_weights_has_a_checksum(encoder):
    before = settings_checksum(str(encoder))
    for name in ("README.md", "trainer_state.json", "optimizer.pt"):
        (encoder / name).write_text("other words")
    assert settings_checksum(str(encoder)) == before
    seen = {before}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        path = encoder / name
        path.write_text((path.read_text() if path.exists() else "") + "\n")
        seen.add(settings_checksum(str(encoder)))
    assert len(seen) == 6
    assert settings_checksum("bert-base-uncased") is None


def test_weights_lie_where_torch_puts_them(finished):
    """In a mapped file they begin at any address, by which products round, and a resumed run ends otherwise."""
    mapped = BertForSequenceClassification.from_pretrained(finished)
    assert any(tensor.data_ptr() % 64 for tensor in mapped.parameters())
    teacher = load_teacher(str(finished), SST2).model
    assert not any(tensor.data_ptr() % 64 for tensor in (*teacher.parameters(), *teacher.buffers()))
