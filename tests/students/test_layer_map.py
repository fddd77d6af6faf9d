"""Layer maps: the documented rules, and every refusal."""

import pytest

from students.layer_map import resolve_layer_map


@pytest.mark.parametrize(
    ("layer_map", "num_student_layers", "num_teacher_layers", "expected"),
    [
        ("even", 3, 6, [0, 2, 4]),
        ("even", 6, 12, [0, 2, 4, 6, 8, 10]),
        ("even", 4, 6, [0, 1, 3, 4]),
        ("even", 1, 6, [0]),
        ("even", 6, 6, [0, 1, 2, 3, 4, 5]),
        ("first", 2, 6, [0, 1]),
        ("last", 2, 6, [4, 5]),
        ([1, 3, 5], 3, 6, [1, 3, 5]),
        ((0, 5), 2, 6, [0, 5]),
    ],
)
def test_resolves(layer_map, num_student_layers, num_teacher_layers, expected):
    assert resolve_layer_map(layer_map, num_student_layers, num_teacher_layers) == expected


@pytest.mark.parametrize("num_teacher_layers", [1, 2, 5, 6, 12, 24])
def test_even_maps_are_valid_explicit_maps(num_teacher_layers):
    for num_student_layers in range(1, num_teacher_layers + 1):
        layers = resolve_layer_map("even", num_student_layers, num_teacher_layers)
        assert resolve_layer_map(layers, num_student_layers, num_teacher_layers) == layers


@pytest.mark.parametrize(
    ("layer_map", "num_student_layers", "message"),
    [
        ("evn", 3, "did you mean 'even'"),
        ("even", 7, "num_layers 7 is above the teacher's 6"),
        ("even", 0, "at least 1"),
        ([0, 2], 3, "names 2 layers"),
        ([0, 2, 2], 3, "strictly increasing"),
        ([4, 2, 0], 3, "strictly increasing"),
        ([0, 2, 6], 3, "0 to 5"),
        ([-1, 2, 4], 3, "0 to 5"),
        ([0, 2.0, 4], 3, "whole numbers"),
        ([False, True], 2, "whole numbers"),
    ],
)
def test_refuses(layer_map, num_student_layers, message):
    with pytest.raises(ValueError, match=message):
        resolve_layer_map(layer_map, num_student_layers, 6)
