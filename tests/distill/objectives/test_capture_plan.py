"""Which outputs of teacher and student a stage reads."""

import pytest
from helpers.short_stages import stage_of

from distill.objectives.capture_plan import CapturePlan, hidden_state_targets, plan_stage

LAYERS = [0, 1]


@pytest.mark.parametrize(
    ("layer_map", "num_teacher_layers", "expected"),
    [
        ([0, 1, 2, 3], 4, [0, 1, 2, 3]),
        ([0, 2, 4], 6, [1, 3, 5]),
        ([0, 1], 6, [0, 5]),
        ([3, 4, 5], 6, [3, 4, 5]),
        ([2], 6, [5]),
    ],
)
def test_hidden_state_targets(layer_map, num_teacher_layers, expected):
    assert hidden_state_targets(layer_map, num_teacher_layers) == expected


@pytest.mark.parametrize(
    ("loss", "student", "teacher"),
    [
        ("attention_output", {"attention_output": LAYERS}, {"attention_output": [0, 2]}),
        ("attention_context", {"attention_context": LAYERS}, {"attention_context": [0, 2]}),
        ("attention_map", {"query": LAYERS, "key": LAYERS}, {"query": [0, 2], "key": [0, 2]}),
        ("hidden_states", {"hidden_states": LAYERS}, {"hidden_states": [1, 5]}),
        ("value_relations", {"value": LAYERS}, {"value": [0, 2]}),
        ("query_relations", {"query": LAYERS}, {"query": [0, 2]}),
        ("key_relations", {"key": LAYERS}, {"key": [0, 2]}),
        ("logits", {}, {}),
        ("labels", {}, {}),
        ("compression", {"layer_input": LAYERS}, {}),
    ],
)
def test_plan_of_every_loss(loss, student, teacher):
    plan = plan_stage(stage_of(loss), [0, 2], 6)
    maps = {"needs_logits": loss == "logits", "needs_maps": loss == "attention_map"}
    assert plan == CapturePlan(student, teacher, teacher_forced=False, **maps)


def test_teacher_forcing_reads_the_inputs_of_the_mapped_layers():
    plan = plan_stage(stage_of("attention_output", inputs="teacher"), [0, 2], 6)
    assert plan.teacher == {"attention_output": [0, 2], "layer_input": [0, 2]}
    assert plan.student == {"attention_output": [0, 1]}
    assert plan.teacher_forced
