"""Parts of a checkpoint that are drawn anew before it is fine-tuned."""

import pytest
import torch
from helpers.tiny_bert import tiny_bert

from distill.config.schema import TeacherConfig
from distill.tasks import get_task
from distill.utils.errors import UserError
from teachers.any_classifier import load_any_teacher
from teachers.loading import load_teacher
from teachers.redrawing import Redrawn, wanted_by

SST2, STSB, RTE = (get_task(name) for name in ("sst2", "stsb", "rte"))


def changed(one, other):
    """Return the names of the weights that differ."""
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return {name for name, tensor in first.items() if not torch.equal(tensor, second[name])}


def test_the_head_of_a_finished_classifier_is_drawn_from_the_seed_and_all_else_stays(finished):
    kept = load_teacher(str(finished), SST2)
    anew, again, other = (load_teacher(str(finished), SST2, seed, redrawn=Redrawn(head=True)) for seed in (1, 1, 2))
    assert (kept.is_trained, anew.is_trained) == (True, False)
    assert changed(kept.model, anew.model) == {"classifier.weight"}  # its bias is zero either way
    assert not changed(anew.model, again.model)
    assert changed(anew.model, other.model) == {"classifier.weight"}
    assert 0.15 < anew.model.classifier.weight.std() < 0.25  # the range of these models is 0.2


def test_a_classifier_of_another_task_becomes_one_of_this_task(finished, tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"teacher.new_head true to fine-tune it"):
        load_teacher(str(finished), STSB)
    regression = load_teacher(str(finished), STSB, redrawn=Redrawn(head=True)).model
    assert (regression.config.num_labels, regression.config.problem_type) == (1, "regression")
    regression.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pairs = load_teacher(str(tmp_path), RTE, redrawn=Redrawn(head=True)).model
    assert (pairs.config.num_labels, pairs.config.problem_type) == (2, None)
    assert list(pairs.config.id2label.values()) == list(RTE.output_names)
    encoder = {name for name in changed(pairs.base_model, load_teacher(str(finished), SST2).model.base_model)}
    assert not encoder
    inputs = {"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.tensor([0, 1])}
    assert pairs(**inputs).loss.isfinite()


def test_the_top_layers_are_drawn_anew_and_those_below_stay(encoder):
    kept = load_teacher(str(encoder), SST2, seed=3)
    anew = load_teacher(str(encoder), SST2, seed=3, redrawn=Redrawn(layers=1))
    last = f"bert.encoder.layer.{kept.model.config.num_hidden_layers - 1}."
    different = changed(kept.model, anew.model)
    assert {name for name in different if name.endswith("weight") and "LayerNorm" not in name}
    assert all(name.startswith(last) for name in different)
    query = anew.model.state_dict()[f"{last}attention.self.query.weight"]
    assert 0.17 < query.std() < 0.23


@pytest.mark.parametrize(
    ("redrawn", "words"),
    [
        (Redrawn(layers=9), r"teacher.new_layers is 9: .* cannot, it has \d layers; give fewer"),
        (Redrawn(layers=1), None),
    ],
)
def test_more_layers_than_there_are_are_refused(encoder, redrawn, words):
    if words is None:
        load_teacher(str(encoder), SST2, redrawn=redrawn)
        return
    with pytest.raises(UserError, match=words):
        load_teacher(str(encoder), SST2, redrawn=redrawn)


def test_layers_of_a_classifier_that_is_taken_as_it_is_are_refused(finished):
    with pytest.raises(UserError, match=r"finished classifier and taken as it is; give teacher.new_head true"):
        load_teacher(str(finished), SST2, redrawn=Redrawn(layers=1))
    load_teacher(str(finished), SST2, redrawn=Redrawn(layers=1, head=True))


@pytest.mark.parametrize("redrawn", [Redrawn(head=True), Redrawn(layers=1)])
def test_teachers_of_other_kinds_say_that_they_cannot(redrawn, tokenizer, tmp_path):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    sizes = {"vocab_size": len(tokenizer), "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    GPT2ForSequenceClassification(GPT2Config(**sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'gpt2': teacher.new_head and teacher.new_layers take a BERT"):
        load_any_teacher(str(tmp_path), SST2, redrawn=redrawn)


def test_a_configuration_says_what_is_wanted():
    assert wanted_by(TeacherConfig()) == Redrawn(pooler=None)
    assert wanted_by(TeacherConfig(new_head=True, new_layers=2, new_pooler=False)) == Redrawn(False, True, 2)


def test_weights_that_came_along_are_no_hindrance():
    """transformers marks loaded weights, and would leave them as they are."""
    from teachers.redrawing import redraw

    model = tiny_bert(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32, num_labels=2)
    for parameter in model.parameters():
        parameter._is_hf_initialized = True
    before = model.classifier.weight.detach().clone()
    redraw(model, [model.classifier])
    assert not torch.equal(before, model.classifier.weight)
