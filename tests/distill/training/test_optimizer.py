"""What a stage trains, and at which learning rate."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.short_stages import stage_of

from distill.data.batching import collate
from distill.training.optimizer import (
    feature_parameters,
    feature_rates,
    parameter_groups,
    set_trainable,
    trainable,
)
from students import ATTENTIONS, student_from_teacher


def names_trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def performer(make_bert):
    return student_from_teacher(
        make_bert(num_layers=2), layer_map=[0, 1], attention="performer", num_features=8, features="learned"
    )[0].eval()


def test_what_each_choice_trains(performer):
    everything = {name for name, _ in performer.named_parameters()}
    features = {id(parameter) for parameter in feature_parameters(performer)}
    feature_names = {name for name, parameter in performer.named_parameters() if id(parameter) in features}
    assert {name.rpartition(".")[2] for name in feature_names} == {"projection", "log_temperature"}
    expected = {
        "features": feature_names,
        "attention": {name for name in everything if ".attention." in name},
        "encoder": everything - {"bert.embeddings.word_embeddings.weight"},
        "all": everything,
    }
    for choice, names in expected.items():
        set_trainable(performer, stage_of("labels", train=choice))
        groups = parameter_groups(performer, stage_of("labels", train=choice), 0.01)
        assert names_trained(performer) == names, choice
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(grouped) == len(set(grouped)) == len(names)
    assert expected["features"] < expected["attention"] < expected["encoder"]


def test_a_shared_model_is_trainable_for_a_while_only(performer):
    performer.requires_grad_(False)
    parameter_groups(performer, stage_of("labels", train="all"), 0.0)
    assert not names_trained(performer)
    with trainable(performer, stage_of("labels", train="attention")):
        assert names_trained(performer)
        assert all(".attention." in name for name in names_trained(performer))
    assert not names_trained(performer)


def test_learning_rates_and_weight_decay_of_the_groups(performer):
    names = {id(parameter): name for name, parameter in performer.named_parameters()}

    def settings(**changes: object) -> dict[str, tuple[float, float]]:
        groups = parameter_groups(performer, stage_of("labels", train="all", **changes), 0.3)
        assert all(group["lr"] == group["initial_lr"] for group in groups)
        return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}

    got = settings()
    layer = "bert.encoder.layer.0."
    assert got[layer + "attention.self.log_temperature"] == (pytest.approx(1.0), 0.0)
    assert got[layer + "attention.self.projection"] == (pytest.approx(1.0), 0.0)
    assert got[layer + "attention.self.query.weight"] == (0.01, 0.3)
    assert got[layer + "attention.self.query.bias"] == (0.01, 0.0)
    assert got[layer + "output.LayerNorm.weight"] == (0.01, 0.0)
    assert got["classifier.weight"] == (0.01, 0.3)
    assert settings(feature_learning_rate=0.5)[layer + "attention.self.projection"][0] == 0.5


def test_lower_layers_learn_slower(make_bert):
    model = make_bert(num_layers=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, stage_of("labels", train="all", layer_decay=0.5), 0.3)
    got = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert set(got) == set(names.values())
    assert got["classifier.weight"] == got["bert.pooler.dense.weight"] == (0.01, 0.3)
    assert got["bert.encoder.layer.1.output.dense.weight"] == (0.005, 0.3)
    assert got["bert.encoder.layer.0.output.dense.bias"] == (0.0025, 0.0)
    assert got["bert.embeddings.word_embeddings.weight"] == (0.00125, 0.3)


@pytest.mark.parametrize("train", ["features", "attention", "encoder", "all"])
def test_what_a_student_keeps_frozen_no_stage_trains(train, make_bert):
    student = student_from_teacher(make_bert(num_layers=2), layer_map=[0, 1], attention="lstm", num_features=8)[0]
    set_trainable(student, stage_of("logits", train=train))
    groups = parameter_groups(student, stage_of("logits", train=train), 0.1)
    assert [group["lr"] for group in groups] == [pytest.approx(0.1)]
    own = {"lstm", "classifier"}
    assert {name.partition(".")[0] for name in names_trained(student)} == own
    assert not any(name.startswith("bert.") for name in names_trained(student))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_without_features_whole_attention_blocks_are_trained(attention, make_bert):
    student = student_from_teacher(make_bert(), layer_map=[0], attention=attention)[0]
    features = {id(parameter) for parameter in feature_parameters(student)}
    groups = parameter_groups(student, stage_of("labels", train="features"), 0.0)
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    blocks = {id(parameter) for name, parameter in student.named_parameters() if ".attention." in name}
    assert trained == (features or blocks)
    expected = 0.01 * ATTENTIONS[attention].feature_rate if features else 0.01
    assert {group["lr"] for group in groups} == {expected}


@pytest.mark.parametrize("train", ["features", "attention", "encoder", "all"])
def test_all_that_is_trained_moves_and_nothing_else(train, performer, make_examples):
    inputs, _ = collate(make_examples(), np.arange(6))
    before = copy.deepcopy(performer.state_dict())
    stage = stage_of("labels", train=train)
    # Without weight decay, which would move what has no gradient.
    set_trainable(performer, stage)
    optimizer = torch.optim.AdamW(parameter_groups(performer, stage, 0.0))
    for _ in range(2):
        performer(**inputs).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, tensor in performer.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == names_trained(performer)


@pytest.mark.parametrize(("attention", "times"), [("performer", 100), ("hybrid", 100), ("linformer", 10)])
def test_how_much_faster_features_learn_is_the_mechanisms_own(make_bert, attention, times):
    teacher = make_bert(num_layers=2)
    student, _ = student_from_teacher(teacher, layer_map=[0, 1], attention=attention, softmax_layers=[1])
    assert set(feature_rates(student).values()) == {times}


def test_every_layers_features_learn_at_the_rate_of_their_own_mechanism(make_bert):
    student, _ = student_from_teacher(make_bert(num_layers=2), layer_map=[0, 1], attention=["linformer", "performer"])
    groups = parameter_groups(student, stage_of("labels", train="all"), 0.01)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    first, second = (layer.attention.self for layer in student.bert.encoder.layer)
    stage = stage_of("labels", train="all")
    for module, times in ((first, 10), (second, 100)):
        own = [rates[id(parameter)] for parameter in module.feature_parameters()]
        assert own == pytest.approx([times * stage.learning_rate] * len(own))
    given = replace(stage, feature_learning_rate=0.5)
    features = [group for group in parameter_groups(student, given, 0.01) if group["lr"] == 0.5]
    assert sum(len(group["params"]) for group in features) == sum(
        len(module.feature_parameters()) for module in (first, second)
    )
