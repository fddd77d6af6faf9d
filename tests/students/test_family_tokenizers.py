"""Texts to answers in every family: cased, of many scripts, longer than the positions, in a batch and alone."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.families import tiny_classifier, tiny_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distill.models.saving import save_pretrained
from students import plain_bert, student_from_teacher
from students.families import FAMILIES

TEXTS = [
    "A Good film",
    "ein ÖDER Film, leider",
    "映画 は 素晴らしい",
    "très bon \N{CLAPPER BOARD}",
    "",
    "no plot at all " * 20,
]


def answers(folder):
    """Return what a saved classifier makes of the texts in one batch, each alone, and through a pipeline."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    call = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", top_k=None)
    together = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        alone = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in TEXTS]
        batch = model(**together).logits
    piped = call(TEXTS, truncation=True, batch_size=4)
    scores = [[each["score"] for each in sorted(answer, key=lambda each: each["label"])] for answer in piped]
    return batch, torch.cat(alone), torch.tensor(scores)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_saved_student_answers_alike_however_it_is_asked(kind, tmp_path):
    tokenizer = tiny_tokenizer(kind, TEXTS, 400)
    teacher = tiny_classifier(kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=3)
    models = {"performer": student_from_teacher(teacher, layer_map=[0, 1], attention="performer", num_features=8)[0]}
    softmax = student_from_teacher(teacher, layer_map=[0, 1], attention="softmax")[0].eval()
    models["softmax"] = softmax
    if kind in ("bert", "roberta", "xlm-roberta", "camembert"):  # whose students are BERTs, tokens aside
        models["plain"] = plain_bert(softmax)
    found = {}
    for name, model in models.items():
        save_pretrained(model, tokenizer, tmp_path / name)
        batch, alone, scores = found[name] = answers(tmp_path / name)
        assert_close(batch, alone)
        assert_close(scores, alone.softmax(-1))
    assert (found["softmax"][0].std(0) > 0.01).all()
    if "plain" in found:
        assert_close(found["plain"][0], found["softmax"][0])
