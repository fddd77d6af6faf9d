"""Layers of one student may differ in heads and feed-forward units, and heads need not fill the hidden size."""

import json

import pytest
import torch
from helpers.fused_flops import FUSED
from helpers.small_students import SIZES, batch, student
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from distill.models.flops import model_flops
from students import ATTENTIONS, StudentConfig, exact_form, plain_bert, student_from_teacher

NARROW = {"hidden_size": 24, "num_attention_heads": [3, 1], "head_size": 8, "intermediate_size": [40, 24]}
ANY_HEADS = [name for name, each in ATTENTIONS.items() if each.takes_any_heads]
WHOLE_STATES = [name for name in ATTENTIONS if name not in ANY_HEADS]


def narrow(name, **options):
    attention = ATTENTIONS[name]
    features = {"num_features": 8} if attention.uses_num_features else {}
    return student(attention=name, attention_options=attention.small_options, **features, **NARROW | options)


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ANY_HEADS)
def test_a_student_is_built_saved_and_loaded_with_the_sizes_of_every_layer(name, tmp_path):
    model = narrow(name)
    layers = model.bert.encoder.layer
    assert [layer.attention.self.num_heads for layer in layers] == [3, 1]
    assert [layer.attention.output.dense.in_features for layer in layers] == [24, 8]
    assert [layer.intermediate.dense.out_features for layer in layers] == [40, 24]
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {key: saved[key] for key in NARROW} == NARROW
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert shapes(loaded) == shapes(model)
    torch.testing.assert_close(loaded(**batch()).logits, model(**batch()).logits)
    of_all_tokens = model(**batch(), output_hidden_states=True).logits
    torch.testing.assert_close(model(**batch()).logits, of_all_tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ANY_HEADS)
def test_operations_are_counted_by_layer(name):
    model = narrow(name, max_position_embeddings=256)
    tokens = {key: values[:1, :1].repeat(1, 256) for key, values in batch().items()}
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, torch.no_grad():
        model(**tokens)
    assert counter.get_total_flops() == pytest.approx(model_flops(model.config, 256), rel=0.05)


@pytest.mark.parametrize("name", WHOLE_STATES)
def test_mechanisms_of_whole_hidden_states_say_which_heads_they_take(name):
    with pytest.raises(ValueError, match=f"{name} attention mixes whole hidden states.*give every layer 4 heads"):
        narrow(name, hidden_size=32, num_attention_heads=[4, 2])
    fitting = narrow(name, hidden_size=32, num_attention_heads=4)
    assert torch.isfinite(fitting(**batch()).logits).all()


@pytest.mark.parametrize("name", WHOLE_STATES)
def test_layers_that_keep_softmax_take_any_heads_beside_them(name):
    mixed = narrow(name, num_attention_heads=[1, 4], hidden_size=32, softmax_layers=[0])
    assert torch.isfinite(mixed(**batch()).logits).all()


@pytest.mark.parametrize("sizes", [(25, [3, 1], 8), (25, 5, 5), (1, 1, 8)])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_odd_sizes_work_or_are_refused_in_words(name, sizes):
    hidden_size, heads, head_size = sizes
    own = {"hidden_size": hidden_size, "num_attention_heads": heads, "head_size": head_size}
    model, said = None, ""
    try:
        model = narrow(name, **own, intermediate_size=7)
    except ValueError as refusal:
        said = str(refusal)
    if model is None:
        assert f"hidden_size {hidden_size}" in said or "heads" in said
        return
    model(**batch()).logits.sum().backward()
    assert torch.isfinite(model(**batch()).logits).all()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"num_attention_heads": [3, 1]}, r"differ from layer to layer; give head_size"),
        ({"num_attention_heads": [3], "head_size": 8}, r"\[3\] has 1 numbers for 2 layers"),
        ({"intermediate_size": [8, 8, 8]}, r"intermediate_size \[8, 8, 8\] has 3 numbers for 2 layers"),
        ({"intermediate_size": [8, 0]}, r"intermediate_size must be positive, got \[8, 0\]"),
        ({"num_attention_heads": 0}, r"num_attention_heads must be positive, got 0"),
        ({"head_size": 0}, r"head_size must be positive, got 0"),
        ({"num_attention_heads": 5}, r"hidden_size 32 is not a multiple of num_attention_heads 5"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        StudentConfig(**SIZES | sizes)


def test_a_student_of_berts_sizes_says_nothing_more_than_before(tmp_path):
    model = student(attention="softmax", num_attention_heads=[4, 4], head_size=8, intermediate_size=[64, 64])
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "head_size" not in saved
    assert (saved["num_attention_heads"], saved["intermediate_size"]) == (4, 64)


def test_sizes_are_inherited_layer_by_layer():
    source = narrow("softmax")
    built, _ = student_from_teacher(source, layer_map=[1], attention="performer", num_features=8)
    assert built.config.num_attention_heads == 1
    assert (built.config.head_size, built.config.intermediate_size) == (8, 24)
    torch.testing.assert_close(exact_form(narrow("performer"))(**batch()).logits.shape, (3, 2))


def test_a_plain_bert_has_one_size_for_all_layers():
    for sizes in (NARROW, NARROW | {"num_attention_heads": 2}, {"intermediate_size": [40, 24]}):
        with pytest.raises(ValueError, match="BERT has one size in all layers"):
            plain_bert(student(attention="softmax", **sizes))
    narrower = student(attention="softmax", **NARROW | {"num_attention_heads": 3, "intermediate_size": 40})
    torch.testing.assert_close(plain_bert(narrower)(**batch()).logits, narrower(**batch()).logits)
