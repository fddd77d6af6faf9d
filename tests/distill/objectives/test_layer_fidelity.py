"""The share of the teacher's variance that each student layer explains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.data.batching import collate
from distill.objectives import layer_fidelity as fidelity
from distill.objectives.layer_fidelity import block_fidelity, in_width_of, layer_fidelity
from students import student_from_teacher
from students.narrowing import Sizes, first_units, narrow_student


def student_of(teacher, layer_map, attention="softmax"):
    return student_from_teacher(teacher, layer_map=layer_map, attention=attention)[0]


def test_a_full_copy_explains_everything(make_bert, make_examples):
    teacher = make_bert(num_layers=3)
    lines = layer_fidelity(teacher, student_of(teacher, [0, 1, 2]), [0, 1, 2], make_examples())
    assert [(line["layer"], line["teacher_layer"]) for line in lines] == [(0, 0), (1, 1), (2, 2)]
    for line in lines:
        assert line["attention_output"] == pytest.approx(1, abs=1e-6)
        assert line["hidden_states"] == pytest.approx(1, abs=1e-6)


def test_layers_are_matched_with_what_they_stand_for(make_bert, make_examples):
    # Teacher layers 1 and 3 pass their input on (no output of attention nor of the feed-forward part), so that
    # student layer i ends where the teacher layer after its own one does.
    teacher = make_bert(num_layers=4)
    with torch.no_grad():
        for layer in (teacher.bert.encoder.layer[1], teacher.bert.encoder.layer[3]):
            for linear in (layer.attention.output.dense, layer.output.dense):
                linear.weight.zero_()
                linear.bias.zero_()
    lines = layer_fidelity(teacher, student_of(teacher, [0, 2]), [0, 2], make_examples())
    for line, teacher_layer in zip(lines, [0, 2], strict=True):
        assert line["teacher_layer"] == teacher_layer
        assert line["hidden_states"] == pytest.approx(1, abs=1e-5)
        assert line["attention_output"] == pytest.approx(1, abs=1e-5)


def test_attention_that_gives_nothing_explains_less_than_nothing(make_bert, make_examples):
    teacher = make_bert(num_layers=2)
    student = student_of(teacher, [0, 1])
    with torch.no_grad():
        student.bert.encoder.layer[0].attention.output.dense.weight.mul_(-1)
    first, second = layer_fidelity(teacher, student, [0, 1], make_examples())
    assert first["attention_output"] < 0
    assert second["attention_output"] < 0.9  # measured on the student's own activations


def test_of_long_texts_fewer_are_read_at_once(make_bert, make_examples, monkeypatch):
    teacher = make_bert(num_layers=2)
    student = student_of(teacher, [0, 1], "performer")
    examples = make_examples(20)
    ends = {name: getattr(examples, name)[:2] for name in ("labels", "ids")}
    first_two = layer_fidelity(teacher, student, [0, 1], replace(examples, offsets=examples.offsets[:3], **ends))
    assert layer_fidelity(teacher, student, [0, 1], examples) != first_two
    monkeypatch.setattr(fidelity, "NUM_TOKENS", 47)  # of 9 to 12 tokens with pads 16
    assert layer_fidelity(teacher, student, [0, 1], examples) == first_two


def test_by_hand_over_a_batch(make_bert, make_examples):
    teacher, examples = make_bert(num_layers=2), make_examples(3)
    student = student_of(teacher, [0, 1], "performer")
    inputs, _ = collate(examples, np.arange(3))
    with torch.no_grad():
        want = teacher.bert(**inputs, output_hidden_states=True).hidden_states
        got = student.eval().bert(**inputs, output_hidden_states=True).hidden_states
    lines = layer_fidelity(teacher, student, [0, 1], examples)
    # The last layer's first token is all that a classifier reads.
    for layer, lengths in ((0, examples.lengths), (1, [1, 1, 1])):
        shares = []
        for row, length in enumerate(lengths):
            target, prediction = (states[layer + 1][row, :length].numpy() for states in (want, got))
            shares.append(1 - ((target - prediction) ** 2).sum() / ((target - target.mean()) ** 2).sum())
        assert lines[layer]["hidden_states"] == pytest.approx(np.mean(shares), abs=1e-4)
        assert lines[layer]["hidden_states"] < 0.999


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_given_back_and_dropout_never_counts(training, make_bert, make_examples):
    teacher = make_bert(num_layers=1, hidden_dropout_prob=0.5)
    student = student_of(teacher, [0]).train(training)
    (line,) = layer_fidelity(teacher, student, [0], make_examples())
    assert student.training is training
    assert line["hidden_states"] == pytest.approx(1, abs=1e-6)
    assert all(parameter.grad is None for parameter in student.parameters())


def test_a_narrower_student_counts_by_what_a_linear_map_finds_in_it(make_bert, make_examples):
    teacher, examples = make_bert(num_layers=2), make_examples(200)
    whole = student_of(teacher, [0, 1])
    sizes = Sizes(32, [2, 2], [64, 64])
    same = narrow_student(whole, [0, 1], first_units(sizes, 32))
    torch.manual_seed(0)
    turned = torch.linalg.qr(torch.randn(32, 32))[0]
    states, mask = torch.randn(40, 7, 32), torch.ones(40, 7, dtype=torch.bool)
    wider = torch.cat([states @ turned, torch.zeros(40, 7, 32)], -1)
    assert (in_width_of(states, wider, mask) - states).square().mean() < 0.01 * states.var()
    noise = in_width_of(states, torch.randn(40, 7, 8), mask)
    assert (noise - states).square().mean() > 0.9 * states.var()
    of_same_width = wider[..., :32]
    assert in_width_of(states, of_same_width, mask) is of_same_width
    narrow = narrow_student(whole, [0, 1], first_units(Sizes(24, [1, 2], [40, 64]), 32))
    lines = layer_fidelity(teacher, narrow, [0, 1], examples)
    assert all(0 < line["hidden_states"] < 1 for line in lines[:1])
    whole_lines = layer_fidelity(teacher, same, [0, 1], examples)
    assert all(line["hidden_states"] == pytest.approx(1, abs=1e-4) for line in whole_lines)


def test_a_block_is_compared_on_what_the_encoders_own_block_reads(make_bert, make_examples):
    teacher = make_bert(num_layers=3)
    for layer in teacher.bert.encoder.layer:  # maps that are no means, so that blocks differ
        layer.attention.self.query.weight.data.mul_(6)
    examples = make_examples(12)
    same, _ = student_from_teacher(teacher, layer_map=[0, 2], attention="softmax")
    assert block_fidelity(teacher, same, [0, 2], examples) == pytest.approx([1, 1], abs=1e-5)
    # The blocks of the layers below answer for nothing: of a wrong first one the second does not suffer.
    same.bert.encoder.layer[0].attention.output.dense.weight.data.zero_()
    first, second = block_fidelity(teacher, same, [0, 2], examples)
    assert first < 0.1
    assert second == pytest.approx(1, abs=1e-5)
    other, _ = student_from_teacher(teacher, layer_map=[0, 2], attention="softmax")
    assert min(block_fidelity(teacher, other, [1, 2], examples)) < 0.5  # of another layer
