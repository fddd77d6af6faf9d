"""Layers of one student may differ in how many features, landmarks or slots they have."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from students import ATTENTIONS, FrozenLSTMConfig, StudentConfig, StudentForSequenceClassification

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
MECHANISMS = [name for name, each in ATTENTIONS.items() if each.uses_num_features and each.features_per_layer]


def config(name, num_features, **options):
    return StudentConfig(attention=name, num_features=num_features, **SIZES | options)


def shapes(model, layer):
    return {name: tensor.shape for name, tensor in model.bert.encoder.layer[layer].state_dict().items()}


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_layer_is_built_with_its_own_number(name, tmp_path):
    torch.manual_seed(0)
    mixed, few, many = (StudentForSequenceClassification(config(name, number)) for number in ([4, 8], 4, 8))
    assert shapes(mixed, 0) == shapes(few, 0)
    assert shapes(mixed, 1) == shapes(many, 1)
    flops = [model.config.attention_flops(16) for model in (mixed, few, many)]
    assert flops[0] == (flops[1] + flops[2]) // 2
    tokens = torch.randint(1, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    mixed.eval().save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.num_features == [4, 8]
    torch.testing.assert_close(loaded(tokens).logits, mixed(tokens).logits)


def test_a_number_for_every_layer_and_none_below_one():
    with pytest.raises(ValueError, match=r"num_features \[4\] has 1 numbers for 2 layers"):
        config("performer", [4])
    with pytest.raises(ValueError, match=r"num_features must be positive, got \[4, 0\]"):
        config("performer", [4, 0])


def test_mechanisms_whose_layers_share_them_refuse_a_list():
    with pytest.raises(ValueError, match="all layers of luna attention share one number"):
        config("luna", [4, 8])
    with pytest.raises(ValueError, match="the LSTM has one size"):
        FrozenLSTMConfig(num_features=[4, 8], **SIZES)
