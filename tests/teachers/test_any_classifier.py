"""Classifiers of other families as teachers: read as transformers reads them, and every way not to be one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_teachers import FAMILIES, teacher_with_code, tiny_teacher
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, CLIPConfig

from distill.data.batching import collate
from distill.data.splits import Examples
from distill.data.tokenization import tokenize, train_tokenizer
from distill.evaluation.predict import predict_logits
from distill.models.hooks import read_teacher
from distill.models.inputs import reading_of
from distill.models.summaries import SUMMARY, count_summary_layers, summary_token
from distill.models.windowed_bert import WindowedBert
from distill.tasks import get_task
from distill.training.label_scale import LabelScale
from distill.training.run_folder import save_model
from distill.utils.errors import UserError
from teachers.any_classifier import load_any_teacher, teacher_length
from teachers.loading import load_teacher

SST2, MRPC, STSB = (get_task(name) for name in ("sst2", "mrpc", "stsb"))
TEXTS = ["a good film", "no plot at all , and far too long for what it has to say", "bad"]
PAIRS = [(first, second) for first in TEXTS for second in TEXTS[:2]]
EVERY = (*FAMILIES, "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A finished classifier of every family."""
    root = tmp_path_factory.mktemp("teachers")
    made = {family: tiny_teacher(family, TEXTS, root / family) for family in EVERY}
    tokenizer = AutoTokenizer.from_pretrained(made["gpt2"])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(made["gpt2"])
    return made


def read(teacher, texts):
    """Return texts, or pairs, in the tokens of a teacher, filled up as it wants them."""
    rows = [(text,) if isinstance(text, str) else text for text in texts]
    examples = Examples(np.arange(len(rows)), rows, np.zeros(len(rows), np.int64))
    return tokenize(examples, teacher.tokenizer, 64, **reading_of(teacher.model, teacher.tokenizer))


def refusal(folder, task=SST2, **options) -> str:
    with pytest.raises(UserError) as refused:
        load_any_teacher(str(folder), task, **options)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
@pytest.mark.parametrize("family", EVERY)
def test_its_logits_are_those_of_every_text_alone(family, texts, folders):
    """Batched by our own code: padding, its side, token types and the token that the head reads are all right."""
    teacher = load_any_teacher(str(folders[family]), SST2)
    assert teacher.is_trained
    plain = AutoModelForSequenceClassification.from_pretrained(folders[family]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    with torch.no_grad():
        alone = [
            plain(**tokenizer(*((text,) if isinstance(text, str) else text), return_tensors="pt")).logits
            for text in texts
        ]
    got = predict_logits(teacher.model, read(teacher, texts), device="cpu", alone=True)
    expected = torch.cat(alone)
    assert expected.std(0).min() > 0.01
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "settings", "token", "place"),
    [
        ("deberta-v2", {}, "first", 0),
        ("modernbert", {}, "first", 0),
        ("modernbert", {"classifier_pooling": "mean"}, "mean", None),
        ("xlnet", {}, "last", -1),
        ("gpt2", {}, "last", -1),
    ],
)
def test_the_summary_is_the_state_that_the_head_reads(family, settings, token, place, tmp_path, folders):
    folder = tiny_teacher(family, TEXTS, tmp_path, **settings) if settings else folders[family]
    teacher = load_any_teacher(str(folder), SST2)
    assert summary_token(teacher.model.config) == token
    tokens = read(teacher, TEXTS)
    batch, _ = collate(tokens, np.arange(3))
    assert count_summary_layers(teacher.model, batch) == 3
    with torch.no_grad():
        together = read_teacher(teacher.model, {SUMMARY: [0, 2]}, batch)
        for row in range(3):
            own, _ = collate(tokens, np.array([row]))
            real = own["attention_mask"][0].bool()
            output = teacher.model(
                input_ids=own["input_ids"][:, real],
                attention_mask=own["attention_mask"][:, real],
                output_hidden_states=True,
            )
            for layer, summary in zip((1, 3), together[SUMMARY], strict=True):
                states = output.hidden_states[layer][0]
                expected = states.mean(0) if place is None else states[place]
                torch.testing.assert_close(summary[row, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", [SST2, STSB], ids=["classes", "scores"])
def test_an_encoder_gets_a_head_of_the_task(family, task, tmp_path):
    tiny_teacher(family, TEXTS, tmp_path, head=False)
    teacher, again, other = (load_any_teacher(str(tmp_path), task, seed) for seed in (1, 1, 2))
    assert not teacher.is_trained
    assert teacher.model.config.num_labels == task.num_labels
    assert list(teacher.model.config.id2label.values()) == list(task.output_names)
    words, kept = teacher.model.get_input_embeddings().weight, AutoModel.from_pretrained(tmp_path)
    assert torch.equal(words, kept.get_input_embeddings().weight)
    heads = [[p for p in each.model.parameters() if p.ndim == 2][-1] for each in (teacher, again, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_head_of_any_family_is_put_into_the_units_of_the_scores(tmp_path):
    tiny_teacher("xlnet", TEXTS, tmp_path, head=False)
    teacher = load_any_teacher(str(tmp_path), STSB)
    before = predict_logits(teacher.model, read(teacher, TEXTS), device="cpu", alone=True)
    LabelScale(shift=100.0, factor=3.0).restore_head(teacher.model)
    after = predict_logits(teacher.model, read(teacher, TEXTS), device="cpu", alone=True)
    np.testing.assert_allclose(after, before * 3 + 100, rtol=1e-4)


def test_a_head_without_a_bias_has_no_units(tmp_path):
    tiny_teacher("gpt2", TEXTS, tmp_path, num_labels=1)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="'gpt2' ends without a linear layer with a bias"):
        LabelScale(shift=1.0, factor=2.0).restore_head(model)


def test_labels_are_matched_by_name(folders, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(folders["deberta-v2"])
    model.config.id2label = {0: "positive", 1: "negative"}
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folders["deberta-v2"]).save_pretrained(tmp_path)
    teacher = load_any_teacher(str(tmp_path), SST2)
    assert teacher.label_note
    assert torch.equal(teacher.model.classifier.weight, model.classifier.weight.flip(0))


def test_a_bert_shows_its_layers_in_texts_of_any_length(make_bert, tmp_path):
    make_bert(max_position_embeddings=8).save_pretrained(tmp_path)
    train_tokenizer(TEXTS, 55).save_pretrained(tmp_path)
    teacher = load_any_teacher(str(tmp_path), SST2)
    tokens = read(teacher, [TEXTS[1], TEXTS[0]])
    batch, _ = collate(tokens, np.arange(2))
    assert batch["input_ids"].shape[1] > 8
    assert count_summary_layers(teacher.model, batch) == 2
    with torch.no_grad():
        together = read_teacher(teacher.model, {SUMMARY: [1]}, batch)
        states = read_teacher(teacher.model, {"hidden_states": [1]}, batch)
    assert torch.equal(together[SUMMARY][0], states["hidden_states"][0][:, :1])
    assert torch.equal(together["logits"], states["logits"])


def test_a_bert_is_loaded_as_ever(make_bert, tmp_path):
    make_bert().save_pretrained(tmp_path)
    train_tokenizer(TEXTS, 55).save_pretrained(tmp_path)
    teacher, known = load_any_teacher(str(tmp_path), SST2), load_teacher(str(tmp_path), SST2)
    assert type(teacher.model) is type(known.model) is WindowedBert
    assert teacher_length(teacher, 4000) == 4000


@pytest.mark.parametrize(("family", "most"), [("modernbert", 64), ("xlnet", 4000), ("deberta-v2", 512)])
def test_it_is_given_no_more_tokens_than_it_has_positions(family, most, folders):
    teacher = load_any_teacher(str(folders[family]), SST2)
    assert teacher_length(teacher, 4000) == most
    assert teacher_length(teacher, 20) == 20


def test_without_a_padding_token(tmp_path):
    tiny_teacher("gpt2", TEXTS, tmp_path)
    assert "no padding token" in refusal(tmp_path)


def test_a_family_that_is_not_taken(tmp_path):
    CLIPConfig().save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "is a 'clip', of which there is no sequence classifier" in message
    assert "DeBERTa" in message


def test_labels_of_another_number(folders):
    assert "has 2 labels but task stsb has 1" in refusal(folders["xlnet"], STSB)


def test_weights_that_are_missing(tmp_path):
    tiny_teacher("modernbert", TEXTS, tmp_path, head=False)
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in weights if "layers.1.mlp" in name)
    weights.pop(gone)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "is torn: 1 weights such as" in refusal(tmp_path)


def test_millions_of_layers(folders, tmp_path):
    config = json.loads((folders["deberta-v2"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**7}))
    assert "num_hidden_layers 10,000,000" in refusal(tmp_path)


@pytest.fixture
def with_code(tmp_path, monkeypatch) -> Path:
    """A classifier of its own code, which leaves a mark when it runs."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return teacher_with_code(TEXTS, tmp_path / "bag", mark=tmp_path / "ran")


def test_code_of_its_own_runs_behind_the_flag_alone(with_code, tmp_path):
    assert "give --teacher.trust_remote_code true" in refusal(with_code)
    assert not (tmp_path / "ran").exists()
    teacher = load_any_teacher(str(with_code), SST2, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert teacher.is_trained
    logits = predict_logits(teacher.model, read(teacher, TEXTS), device="cpu", alone=True)
    assert logits.shape == (3, 2)
    assert count_summary_layers(teacher.model, collate(read(teacher, TEXTS), np.arange(1))[0]) == 0


def test_code_of_its_own_is_saved_with_the_teacher_and_only_if_that_is_trusted(with_code, tmp_path):
    teacher = load_any_teacher(str(with_code), SST2, trust_remote_code=True)
    save_model(teacher.model, teacher.tokenizer, tmp_path / "kept", with_code=True)
    again = load_any_teacher(str(tmp_path / "kept"), SST2, trust_remote_code=True)
    assert torch.equal(again.model.words.weight, teacher.model.words.weight)
    save_model(teacher.model, teacher.tokenizer, tmp_path / "left")
    assert "auto_map" not in (tmp_path / "left" / "config.json").read_text()
