"""Layers of one student may differ in how many features, landmarks or slots they have."""

import pytest
import torch
from helpers.small_students import SIZES, batch, student
from transformers import AutoModelForSequenceClassification

from students import ATTENTIONS, FrozenLSTMConfig, StudentConfig

MECHANISMS = [name for name, each in ATTENTIONS.items() if each.uses_num_features and each.features_per_layer]


def shapes(model, layer):
    return {name: tensor.shape for name, tensor in model.bert.encoder.layer[layer].state_dict().items()}


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_layer_is_built_with_its_own_number(name, tmp_path):
    mixed, few, many = (student(attention=name, num_features=number) for number in ([4, 8], 4, 8))
    assert shapes(mixed, 0) == shapes(few, 0)
    assert shapes(mixed, 1) == shapes(many, 1)
    lower, last = ATTENTIONS[name].flops(few.config, 16), ATTENTIONS[name].first_flops(many.config, 16)
    assert mixed.config.attention_flops(16) == lower + last
    mixed.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.num_features == [4, 8]
    torch.testing.assert_close(loaded(**batch()).logits, mixed(**batch()).logits)


def test_a_number_for_every_layer_and_none_below_one():
    with pytest.raises(ValueError, match=r"num_features \[4\] has 1 numbers for 2 layers"):
        StudentConfig(**SIZES, num_features=[4])
    with pytest.raises(ValueError, match=r"num_features must be positive, got \[4, 0\]"):
        StudentConfig(**SIZES, num_features=[4, 0])


def test_mechanisms_whose_layers_share_them_refuse_a_list():
    with pytest.raises(ValueError, match="all layers of luna attention share one number"):
        StudentConfig(**SIZES, attention="luna", num_features=[4, 8])
    with pytest.raises(ValueError, match="the LSTM has one size"):
        FrozenLSTMConfig(**SIZES, num_features=[4, 8])
