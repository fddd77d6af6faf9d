"""A student that is asked for by its speed: what is refused, and how a found shape takes the place of the question."""

import json
from dataclasses import replace

import pytest

from distill.config.recipe import adopt
from distill.config.resume import refused_keys
from distill.config.schema import Config, StageConfig, StudentSettings
from distill.config.shape_search import (
    ShapeSearch,
    StudentShape,
    TriedShape,
    read_search,
    search_file,
    with_found_shape,
    with_shape,
)
from distill.config.validation import check_config
from distill.utils.errors import UserError
from distill.utils.record_json import to_json
from students import STUDENTS

SHAPE = StudentShape(4, 192, 768, 6)
ASKED = Config("sst2", student=StudentSettings(target_speedup=8.0, softmax_layers=[-1]))
FOUND = ShapeSearch(8.0, None, 24, "cpu", "float32", 36, 20, (TriedShape(SHAPE, 8.2, 8.1, 8.3),), SHAPE)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target_speedup": 1.0}, ("student.target_speedup is 1.0", "above 1")),
        ({"target_length": 0}, ("student.target_length is 0",)),
        ({"target_length": 129}, ("student.target_length is 129", "data.max_length = 128")),
        ({"target_speedup": None, "target_length": 128}, ("student.target_length is 128", "student.target_speedup")),
        ({"hidden_size": 192}, ("student.hidden_size is 192", "leave one of the two out")),
        ({"intermediate_size": 8}, ("student.intermediate_size is 8", "leave one of the two out")),
        ({"num_heads": [1, 1, 1]}, ("student.num_heads is [1, 1, 1]", "leave one of the two out")),
        ({"layer_map": "importance"}, ("student.layer_map is 'importance'", "give even, first or last")),
        ({"layer_map": [0, 2, 4]}, ("student.layer_map is [0, 2, 4]", "several depths")),
        ({"softmax_layers": [0]}, ("student.softmax_layers is [0]", "give -1")),
        ({"num_features": [8, 8, 8]}, ("student.num_features is [8, 8, 8]", "give one number")),
        ({"attention": "lstm", "softmax_layers": []}, ("student.attention is 'lstm'", "keeps its layers")),
    ],
)
def test_what_holds_for_one_shape_is_refused_beside_a_speed(given, words):
    with pytest.raises(UserError) as refused:
        check_config(replace(ASKED, student=replace(ASKED.student, **given)), STUDENTS)
    assert "\n" not in str(refused.value)
    assert all(word in str(refused.value) for word in words)


def test_stages_of_full_width_go_with_a_speed():
    full = StageConfig("depth", 1, 1e-4, {"logits": 1.0}, attention="softmax", width="full")
    asked = replace(ASKED, stages=(full, replace(full, name="width", width=None)))
    check_config(asked, STUDENTS)
    check_config(with_shape(asked, SHAPE), STUDENTS)


def keep(folder, search):
    path = search_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(search)))


def test_a_found_shape_is_taken_for_the_same_question_alone(tmp_path):
    assert read_search(tmp_path) is None
    assert with_found_shape(ASKED, tmp_path) == ASKED
    keep(tmp_path, replace(FOUND, chosen=None))
    assert with_found_shape(ASKED, tmp_path) == ASKED
    keep(tmp_path, FOUND)
    assert read_search(tmp_path) == FOUND
    found = with_found_shape(ASKED, tmp_path).student
    sizes = (found.num_layers, found.hidden_size, found.intermediate_size, found.num_heads)
    assert sizes == (4, 192, 768, 6)
    assert (found.target_speedup, found.target_length) == (None, None)
    for other in ({"target_speedup": 4.0}, {"target_length": 128}):
        asked = replace(ASKED, student=replace(ASKED.student, **other))
        assert with_found_shape(asked, tmp_path) == asked
    asked = replace(ASKED, comparison=replace(ASKED.comparison, dtype="bfloat16"))
    assert with_found_shape(asked, tmp_path) == asked


def test_both_commands_go_on_with_the_run(tmp_path):
    keep(tmp_path, FOUND)
    saved = with_found_shape(ASKED, tmp_path)
    for command in (ASKED, saved):
        wanted = adopt(with_found_shape(command, tmp_path), saved)
        assert refused_keys(saved, wanted, []) == []
    other = replace(ASKED, student=replace(ASKED.student, target_speedup=6.0))
    assert "student.target_speedup" in refused_keys(saved, with_found_shape(other, tmp_path), [])


def test_a_torn_search_is_named(tmp_path):
    keep(tmp_path, FOUND)
    search_file(tmp_path).write_text("{")
    with pytest.raises(UserError, match=r"search\.json is torn; remove .*search to search again") as torn:
        with_found_shape(ASKED, tmp_path)
    assert str(torn.value).count("to search again") == 1
    search_file(tmp_path).write_text('{"target_speedup": 8.0}')
    with pytest.raises(UserError, match=r"is missing; .*to search again"):
        read_search(tmp_path)


def test_finalists_are_those_that_are_fast_enough():
    slow = TriedShape(replace(SHAPE, num_layers=5), 7.9, 7.8, 8.1)
    assert [each.shape for each in replace(FOUND, tried=(slow, *FOUND.tried)).finalists] == [SHAPE]
