"""What the stages of a run read, what is stored of it, and how long it stays."""

from dataclasses import replace

import pytest
from helpers.default_stages import DEPTH, DEPTH_LOGITS, LAYERS, LOGITS, MATCH, TRANSFER

from distill.config.schema import StageConfig
from teachers.output_format import Output
from teachers.output_plan import is_read_later, is_worth_storing, plan_for, plan_readings, read_later

FIT = StageConfig("fit", 4, 1e-4, {"attention_output": 1.0}, targets="exact_form", texts="packed", inputs="teacher")
STAGES = (DEPTH, DEPTH_LOGITS, TRANSFER, MATCH, LOGITS, FIT, replace(FIT, name="refit"))
READINGS = plan_readings(STAGES, [0, 4, 8], 12)


def outputs(stages, layer_map, num_layers, index):
    return sorted(plan_readings(stages, layer_map, num_layers)[index].outputs)


def test_a_student_is_matched_layer_by_layer_and_the_teacher_by_the_map():
    assert outputs(STAGES, [0, 4, 8], 12, 0) == [
        *(Output("attention_output", 0), Output("attention_output", 4), Output("attention_output", 8, True)),
        *(Output("hidden_states", 3), Output("hidden_states", 7), Output("hidden_states", 11, True)),
    ]
    assert outputs(STAGES, [0, 4, 8], 12, 2) == [
        *(Output("attention_output", 0), Output("attention_output", 1), Output("attention_output", 2, True)),
        *(Output("hidden_states", 0), Output("hidden_states", 1), Output("layer_input", 0)),
    ]
    assert plan_for(MATCH, [0, 4, 8], 12).teacher == {"attention_output": [0, 1, 2], "hidden_states": [0, 1, 2]}


def test_what_is_read_later_stays_and_the_rest_goes():
    assert [bool(read_later(READINGS, index)) for index in range(len(STAGES))] == [False, False, True, *[False] * 4]
    assert read_later(READINGS, 2) == READINGS[3].outputs
    assert [is_read_later(READINGS, index) for index in range(len(STAGES))] == [True, True, True, *[False] * 4]


@pytest.mark.parametrize(
    ("stages", "worth"),
    [
        ((DEPTH,), False),  # one epoch: one pass either way
        ((replace(DEPTH, epochs=0.5),), False),
        ((replace(DEPTH, epochs=1.5),), True),
        ((DEPTH, replace(DEPTH, name="again")), True),
        ((DEPTH, LOGITS), True),  # the logits come with the same pass
        ((DEPTH, replace(DEPTH_LOGITS, losses={"labels": 1.0})), False),
        ((DEPTH, DEPTH_LOGITS, MATCH), True),
        ((replace(DEPTH, losses=LAYERS | {"logits": 1.0}),), False),
    ],
)
def test_stored_where_it_spares_a_pass(stages, worth):
    readings = plan_readings(stages, [0, 4, 8], 12)
    assert is_worth_storing(readings, readings[0].group) is worth


def test_groups_are_decided_on_their_own():
    """The last stage of this recipe reads the softmax student once: its outputs are not stored."""
    readings = plan_readings((DEPTH, DEPTH_LOGITS, MATCH), [0, 4, 8], 12)
    assert not is_worth_storing(readings, readings[2].group)
    assert len({reading.group for reading in READINGS}) == 4  # the teacher, its student, and each exact form
