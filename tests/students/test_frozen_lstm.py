"""The frozen BERT with an LSTM on it: nothing but the LSTM changes, and pads do not exist for it."""

import pytest
import torch
from helpers.closeness import LAST_BITS, assert_close
from helpers.small_students import SIZES as TWO_LAYERS
from helpers.small_students import logits_elsewhere
from helpers.tiny_bert import tiny_bert
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from students import FrozenLSTMConfig, FrozenLSTMForSequenceClassification, student_from_teacher

SIZES = TWO_LAYERS | {"num_hidden_layers": 3}


@pytest.fixture
def student_and_teacher():
    teacher = tiny_bert(**SIZES, num_labels=3)
    student, report = student_from_teacher(teacher, layer_map=[0, 1, 2], attention="lstm", num_features=16)
    assert isinstance(student, FrozenLSTMForSequenceClassification)
    assert {name.partition(".")[0] for name in report.new} == {"lstm", "classifier"}
    assert {name.partition(".")[0] for name in report.copied} == {"bert"}
    return student, teacher


def batch():
    input_ids = torch.randint(1, 60, (3, 10), generator=torch.Generator().manual_seed(0))
    return {"input_ids": input_ids, "attention_mask": (torch.arange(10) < torch.tensor([[10], [4], [7]])).long()}


def test_the_encoder_is_the_teachers_even_in_training(student_and_teacher):
    student, teacher = student_and_teacher
    student.train()
    assert student.lstm.training
    real = batch()["attention_mask"].bool()
    expected = teacher.bert(**batch()).last_hidden_state[real]
    for _ in range(2):  # dropout would differ
        states = student(**batch(), output_hidden_states=True).hidden_states[-1][real]
        assert_close(states, expected)


def test_only_the_lstm_and_the_classifier_learn(student_and_teacher):
    student, _ = student_and_teacher
    student.train().requires_grad_(True)  # whatever anybody switches on
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.1)
    student(**batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if not name.startswith("bert.")}


def test_c1_padded_examples_are_their_unpadded_selves(student_and_teacher):
    student = student_and_teacher[0].double().eval()
    inputs = batch()
    expected = torch.cat(
        [
            student(input_ids=ids[mask.bool()][None]).logits
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
    )
    torch.testing.assert_close(student(**inputs).logits, expected, rtol=0, atol=1e-10)
    left = student(
        input_ids=F.pad(inputs["input_ids"][:1], (5, 0), value=3),
        attention_mask=F.pad(inputs["attention_mask"][:1], (5, 0)),
        position_ids=F.pad(torch.arange(10), (5, 0))[None],
    )
    torch.testing.assert_close(left.logits, expected[:1], rtol=0, atol=1e-10)


def test_an_example_without_real_tokens_is_finite(student_and_teacher):
    student, _ = student_and_teacher
    assert student(input_ids=torch.ones(2, 5).long(), attention_mask=torch.zeros(2, 5).long()).logits.isfinite().all()


def test_saves_loads_and_ships_its_source(student_and_teacher, tmp_path):
    student = student_and_teacher[0].eval()
    student.save_pretrained(tmp_path / "students" / "lstm")
    expected = student(**batch()).logits
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "students" / "lstm")
    assert type(loaded) is FrozenLSTMForSequenceClassification
    weights = loaded.state_dict()
    assert weights.keys() == student.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in student.state_dict().items())
    # The same weights at another place in memory are added up in another order by some processors' LSTM.
    assert_close(loaded(**batch()).logits, expected, LAST_BITS)
    assert loaded.train().bert.training is False
    loaded(**batch()).logits.sum().backward()
    assert all(parameter.grad is None for parameter in loaded.bert.parameters())
    assert_close(logits_elsewhere(batch(), tmp_path)["lstm"], expected, LAST_BITS)


def test_configuration():
    config = FrozenLSTMConfig(**SIZES)
    assert (config.attention, config.num_features, config.attention_of_layer(0)) == ("lstm", 256, "softmax")
    # Four gates, two directions: 2 · 2 · 4 h (D + h) per token; the classifier reads 2h.
    assert config.head_flops(10) == 10 * 16 * 256 * (32 + 256) + 2 * 512 * 2
    with pytest.raises(ValueError, match="choose one of lstm"):
        FrozenLSTMConfig(**SIZES, attention="performer")
