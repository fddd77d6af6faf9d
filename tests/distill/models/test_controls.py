"""What is timed beside teacher and student: softmax students of the student's sizes, and as wide as the teacher."""

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_bert import tiny_bert
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from distill.models.controls import full_width_control, softmax_control
from students import StudentConfig, StudentForSequenceClassification, student_from_teacher

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8}
STUDENT = {"attention": "performer", "num_features": 8, "num_hidden_layers": 3, "max_position_embeddings": 16}


def of_family(kind):
    if kind == "bert":
        return tiny_bert(**SIZES, num_hidden_layers=1)
    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=16)
    )


def test_the_control_is_the_student_with_softmax():
    student = StudentForSequenceClassification(StudentConfig(**SIZES | STUDENT))
    control = softmax_control(student)
    assert control.config.attention == "softmax"
    assert control.config.num_hidden_layers == 3
    assert student.config.attention == "performer"
    bert = of_family("bert")
    assert softmax_control(bert) is None
    assert softmax_control(student_from_teacher(bert, layer_map=[0], attention="lstm", num_features=8)[0]) is None


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_that_of_full_width_has_the_teachers_sizes_and_the_students_depth(kind):
    teacher = of_family(kind)
    assert full_width_control(StudentForSequenceClassification(StudentConfig(**SIZES | STUDENT)), teacher) is None
    narrow = {"hidden_size": 8, "num_attention_heads": [1, 1, 2], "head_size": 8, "intermediate_size": [8, 4, 4]}
    control = full_width_control(StudentForSequenceClassification(StudentConfig(**SIZES | STUDENT | narrow)), teacher)
    layers = control.bert.encoder.layer
    assert control.config.attention == "softmax"
    assert [layer.attention.self.num_heads for layer in layers] == [2, 2, 2]
    assert [tuple(layer.intermediate.dense.weight.shape) for layer in layers] == [(8, 16)] * 3
    assert [tuple(layer.attention.output.dense.weight.shape) for layer in layers] == [(16, 16)] * 3
    assert control(input_ids=torch.ones(1, 5, dtype=torch.int64)).logits.shape == (1, 2)


def test_a_control_has_heads_as_wide_as_the_teachers_and_moves_no_random_state():
    """A teacher whose heads do not fill its hidden states; students that differ in their heads alone."""
    sizes = SIZES | {"hidden_size": 16, "num_attention_heads": 3, "head_size": 8}
    teacher = StudentForSequenceClassification(StudentConfig(**sizes, attention="softmax", max_position_embeddings=16))
    student = StudentForSequenceClassification(StudentConfig(**sizes | STUDENT | {"head_size": 4}))
    before = torch.get_rng_state()
    control = full_width_control(student, teacher)
    assert torch.equal(torch.get_rng_state(), before)
    assert [layer.attention.self.query.weight.shape[0] for layer in control.bert.encoder.layer] == [24] * 3
    assert softmax_control(student).bert.encoder.layer[0].attention.self.query.weight.shape[0] == 12
    assert torch.equal(torch.get_rng_state(), before)
    assert full_width_control(teacher, teacher) is None


def test_there_is_none_of_full_width_where_the_teachers_layers_are_not_berts():
    student = StudentForSequenceClassification(StudentConfig(**SIZES | STUDENT | {"intermediate_size": 4}))
    assert full_width_control(student, SimpleNamespace(config=SimpleNamespace(model_type="xlnet"))) is None
