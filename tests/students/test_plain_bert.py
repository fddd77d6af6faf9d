"""A student whose attention is exact is given back as a BERT with the same answers, and no other student is."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.families import batch_for, tiny_classifier
from helpers.small_students import SIZES, batch, student
from transformers import BertForSequenceClassification

from students import (
    ATTENTIONS,
    FrozenLSTMConfig,
    FrozenLSTMForSequenceClassification,
    exact_length,
    plain_bert,
    student_from_teacher,
)

POSITIONS = SIZES["max_position_embeddings"]
EXACT = {
    "softmax": {"attention": "softmax"},
    "memory_efficient": {"attention": "memory_efficient", "attention_options": {"chunk": 4}},
    "softmax in all layers": {"attention": "fnet", "softmax_layers": [0, 1]},
    "three labels": {"attention": "softmax", "num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}},
    "a score": {"attention": "softmax", "num_labels": 1, "problem_type": "regression"},
    "other dropout and activation": {"attention": "softmax", "hidden_act": "relu", "classifier_dropout": 0.3},
    **{
        f"{name} up to all positions": {"attention": name, "exact_up_to": 100, "num_features": 8}
        | ({} if ATTENTIONS[name].uses_num_features else {"num_features": None})
        for name in ATTENTIONS
        if ATTENTIONS[name].why_not_exact({}) is None
    },
}


@pytest.mark.parametrize("name", EXACT)
def test_the_bert_answers_as_the_student_does(name):
    model = student(**EXACT[name])
    bert = plain_bert(model)
    assert type(bert) is BertForSequenceClassification
    assert not bert.training
    assert exact_length(model.config) == bert.config.max_position_embeddings == POSITIONS
    for length in (1, 10, POSITIONS):
        with torch.no_grad():
            assert_close(bert(**batch(length=length)).logits, model(**batch(length=length)).logits)
    config = bert.config.to_dict()
    assert config["model_type"] == "bert"
    assert not {"attention", "auto_map", "exact_up_to", "num_features", "layer_map"} & set(config)
    for key in ("id2label", "problem_type", "classifier_dropout", "hidden_act", "layer_norm_eps"):
        assert getattr(bert.config, key) == getattr(model.config, key)


def test_a_bert_reads_no_text_in_which_the_student_is_not_exact():
    model = student(attention="performer", num_features=8, exact_up_to=10, softmax_layers=[-1])
    bert = plain_bert(model)
    assert exact_length(model.config) == bert.config.max_position_embeddings == 10
    with torch.no_grad():
        assert_close(bert(**batch(length=10)).logits, model(**batch(length=10)).logits)
        with pytest.raises((IndexError, RuntimeError)):
            bert(**batch(length=11))


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert"])
@pytest.mark.parametrize("exact_up_to", [0, 12])
def test_a_student_of_a_family_that_counts_from_padding(kind, exact_up_to):
    how = {"attention": "performer", "exact_up_to": exact_up_to} if exact_up_to else {"attention": "softmax"}
    model = student_from_teacher(tiny_classifier(kind), layer_map=[0, 1], **how)[0].eval()
    bert, longest = plain_bert(model), exact_up_to or 32
    assert exact_length(model.config) == bert.config.max_position_embeddings == longest
    inputs = batch_for(model, (longest, 5, 1), longest)
    with torch.no_grad():
        assert_close(bert(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("electra", {"embedding_size": 16}, "head has gelu where that of BERT has tanh"),
        ("distilbert", {}, "head has relu where that of BERT has tanh"),
        ("albert", {}, "a linear layer between its embeddings and its layers"),
        ("albert", {"embedding_size": 16}, "a linear layer between its embeddings and its layers"),
    ],
)
def test_a_student_of_a_family_with_another_head_or_embeddings_is_no_bert(kind, settings, reason):
    model = student_from_teacher(tiny_classifier(kind, **settings), layer_map=[0, 1], attention="softmax")[0]
    with pytest.raises(ValueError, match=reason):
        plain_bert(model)


def test_another_student_is_no_bert():
    with pytest.raises(ValueError, match="performer attention is not BERT's at any length"):
        plain_bert(student(attention="performer", num_features=8, softmax_layers=[-1]))
    lstm = FrozenLSTMForSequenceClassification(FrozenLSTMConfig(num_features=8, **SIZES))
    with pytest.raises(ValueError, match="a head that BERT does not have"):
        plain_bert(lstm)
