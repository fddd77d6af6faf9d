"""What a teacher may be, and what is known of it."""

import torch
from transformers import BertForSequenceClassification

from distill.config.schema import ScratchConfig
from distill.data.tokenization import train_tokenizer
from distill.tasks import get_task
from teachers.loading import (
    freeze,
    is_classifier,
    load_teacher,
    settings_checksum,
    teacher_from_scratch,
    weights_checksum,
)
from teachers.redrawing import Redrawn

SST2, MNLI, STSB = get_task("sst2"), get_task("mnli"), get_task("stsb")
TEXTS = ["a good film", "a bad film", "no plot at all"]


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
        load_teacher(str(tmp_path), SST2, seed, redrawn=Redrawn(new)).model.state_dict()
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
    kept = load_teacher(str(finished), SST2, redrawn=Redrawn(True)).model
    assert torch.equal(kept.bert.pooler.dense.weight, make_bert().bert.pooler.dense.weight)


def test_a_frozen_teacher(make_bert):
    teacher = freeze(make_bert().train())
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_what_was_loaded_is_saved_as_a_finished_teacher(encoder, tmp_path):
    teacher = load_teacher(str(encoder), SST2)
    teacher.model.save_pretrained(tmp_path / "saved")
    teacher.tokenizer.save_pretrained(tmp_path / "saved")
    again = load_teacher(str(tmp_path / "saved"), SST2)
    assert again.is_trained
    assert isinstance(again.model, BertForSequenceClassification)
    assert torch.equal(again.model.classifier.weight, teacher.model.classifier.weight)


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
