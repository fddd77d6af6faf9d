"""Which shapes are measured and tried, from a made-up table of layer costs."""

import pytest

from distill.benchmark.latency_table import LatencyTable, LayerCost, between, layer_kinds, with_units
from distill.benchmark.shape_choice import best, decide_speed, promising_depths, try_speeds
from distill.config.shape_search import StudentShape, TriedShape


def cost(width: int, units: int, more: float, overhead: float = 0.01) -> LayerCost:
    return LayerCost(StudentShape(1, width, units, width // 32), overhead + more, more)


TABLE = LatencyTable(
    6,
    (
        *(cost(384, 1536, 0.16), cost(384, 384, 0.09)),
        *(cost(192, 768, 0.07), cost(192, 192, 0.04)),
        *(cost(96, 384, 0.03), cost(96, 96, 0.02)),
    ),
)
"""Of a teacher of six layers of 384; a student of n layers takes n times the third number, and 0.01."""


def exact(shape):
    """Measure what the table predicts."""
    speed = dict(TABLE.shapes)[shape]
    return speed, 0.9 * speed, 1.1 * speed


def test_time_is_linear_in_layers():
    speeds = dict(TABLE.shapes)
    assert len(speeds) == 36
    assert speeds[StudentShape(1, 384, 1536, 12)] == pytest.approx(1 / 0.17)
    assert speeds[StudentShape(6, 192, 192, 6)] == pytest.approx(1 / 0.25)


def test_depths_trade_layers_for_width():
    tried = try_speeds(TABLE, 4.0, exact)
    assert [each.shape.name for each in tried] == ["1x384x1536", "2x384x384", "3x192x768", "6x192x192"]
    assert all(4.0 <= each.speedup <= 6.0 for each in tried)


def test_what_is_far_too_fast_is_not_tried_unless_nothing_is_nearer():
    assert 1 in promising_depths(TABLE, 4.0)
    assert 1 not in promising_depths(TABLE, 3.9)
    loose = LatencyTable(1, TABLE.costs)
    assert promising_depths(loose, 1.5) == [1]


def test_a_shape_is_left_out_where_a_deeper_one_has_as_much_of_everything():
    assert promising_depths(TABLE, 1.02) == [6]


def test_no_more_depths_than_may_be_tried_with_both_ends():
    every = promising_depths(TABLE, 4.0, 6)
    assert promising_depths(TABLE, 4.0, 2) == [every[0], every[-1]]


def test_what_is_slower_than_predicted_makes_room_for_a_smaller_shape():
    measured = []

    def slower(shape):
        measured.append(shape.name)
        speed = dict(TABLE.shapes)[shape] / 1.5
        return speed, speed, speed

    tried = try_speeds(TABLE, 4.0, slower)
    assert [each.shape.name for each in tried] == measured
    deepest = [name for name in measured if name.startswith("6x")]
    assert deepest == ["6x192x192", "6x96x96"], "6x96x384 is predicted to be too slow now"
    by_depth = {}
    for each in tried:
        by_depth.setdefault(each.shape.num_layers, []).append(each.speedup >= 4.0)
    assert any(found == [False, True] for found in by_depth.values())
    assert all(not any(found[:-1]) for found in by_depth.values()), "nothing is measured behind a shape that fits"


def test_where_nothing_is_fast_enough_the_fastest_is_measured():
    (only,) = try_speeds(TABLE, 100.0, exact)
    assert only.shape == StudentShape(1, 96, 96, 3)


def test_the_nearest_to_the_teacher_is_taken_and_of_equal_ones_the_fastest():
    shapes = [StudentShape(number, 96, 96, 3) for number in (1, 2, 3)]
    scores = zip(shapes, (4.0, 5.0, 6.0), (0.3, 0.2, 0.2), strict=True)
    tried = [TriedShape(shape, speed, speed, speed, divergence=score) for shape, speed, score in scores]
    assert best(tried).shape == shapes[2]
    for none in (None, float("nan"), float("inf")):
        assert best([TriedShape(shapes[0], 9.0, 9.0, 9.0, divergence=none), *tried]).shape == shapes[2]


@pytest.mark.parametrize(
    ("answers", "budgets"),
    [
        ([(4.1, 4.01, 4.2)], [2.0]),
        ([(2.0, 1.0, 4.0)], [2.0]),
        ([(4.1, 3.0, 5.6), (3.8, 3.7, 3.9)], [2.0, 4.0]),
        ([(4.1, 3.0, 5.6), (3.8, 3.0, 4.9), (4.2, 3.9, 4.5)], [2.0, 4.0, 8.0]),
    ],
)
def test_a_speed_is_measured_again_in_twice_the_time_while_its_interval_contains_the_target(answers, budgets):
    given = []

    def measure(seconds):
        given.append(seconds)
        return answers[len(given) - 1]

    assert decide_speed(measure, 4.0, 2.0) == answers[-1]
    assert given == budgets


def test_kinds_of_layers_keep_whole_heads():
    kinds = layer_kinds(384, 1536, 12)
    assert [(kind.num_heads, kind.hidden_size) for kind in kinds] == [
        *((12, 384), (10, 320), (8, 256), (6, 192), (4, 128), (3, 96))
    ]
    assert [kind.intermediate_size for kind in kinds] == [1536, 1280, 1024, 768, 512, 384]
    assert [kind.num_heads for kind in layer_kinds(32, 64, 2)] == [2, 1]


def test_units_between_are_interpolated():
    kind = StudentShape(1, 64, 256, 2)
    half = between(LayerCost(kind, 0.4, 0.2), LayerCost(with_units(kind, 0.25), 0.1, 0.05), 0.5)
    assert half.shape == StudentShape(1, 64, 128, 2)
    assert (half.one, half.more) == pytest.approx((0.2, 0.1))
