"""The structure and the arithmetic of speed points, with a clock that counts layers instead of time."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from helpers.tiny_bert import tiny_bert
from torch import nn
from transformers import BertForSequenceClassification

from distill.benchmark import latency
from distill.benchmark.conditions import Conditions, Models
from distill.benchmark.points import NoisePoint
from distill.benchmark.timing import BLOCKS, Budget
from distill.utils.record_json import to_json

DESIGN_FIELDS = {
    *("device", "dtype", "batch_size", "length", "teacher_ms", "student_ms"),
    *("speedup", "low", "high", "depth_speedup", "attention_speedup"),
}


def make_bert(num_layers: int) -> BertForSequenceClassification:
    return tiny_bert(num_hidden_layers=num_layers)


class CostClock:
    """Moves by what a forward pass 'costs': ``cost(model's layer count, batch, length)`` milliseconds."""

    def __init__(self, monkeypatch, cost) -> None:
        self.time = 0.0
        original = BertForSequenceClassification.forward

        self.models: dict[int, nn.Module] = {}  # kept alive, so that no two have the same id

        def forward(model, input_ids=None, attention_mask=None, token_type_ids=None):
            self.models[id(model)] = model
            self.time += cost(model.config.num_hidden_layers, *input_ids.shape) / 1000
            return original(model, input_ids, attention_mask, token_type_ids)

        monkeypatch.setattr(BertForSequenceClassification, "forward", forward)

    def __call__(self) -> float:
        return self.time


CONDITIONS = Conditions("cpu", torch.float32, vocabulary_size=50)
COMPILED = replace(CONDITIONS, compiled=True)


def make_models(control: bool = True) -> Models:
    """Layer counts name the roles: 6 the teacher, 3 the control, 2 the student."""
    return Models(make_bert(6), make_bert(2), control=make_bert(3) if control else None)


def measure(clock, *, control: bool = True, batch_sizes=(1, 2), lengths=(8, 16), seconds: float = 0.5):
    grid = list(product(batch_sizes, lengths))
    return latency.measure_speed(make_models(control), CONDITIONS, grid, Budget(seconds), clock)


def test_points_follow_the_record_and_multiply_out(monkeypatch):
    points = measure(CostClock(monkeypatch, lambda layers, batch, length: layers * batch))
    assert [(point.batch_size, point.length) for point in points] == [(1, 8), (1, 16), (2, 8), (2, 16)]
    for point in points:
        assert set(to_json(point)) >= DESIGN_FIELDS
        assert (point.device, point.dtype, point.speed_only) == ("cpu", "float32", False)
        assert point.teacher_ms == pytest.approx(6 * point.batch_size)
        assert point.student_ms == pytest.approx(2 * point.batch_size)
        assert (point.low, point.speedup, point.high) == pytest.approx((3, 3, 3))
        assert point.depth_speedup == pytest.approx(2)
        assert point.attention_speedup == pytest.approx(1.5)
        assert point.speedup == pytest.approx(point.depth_speedup * point.attention_speedup)


def test_what_the_width_bought_is_a_part_of_what_fewer_layers_bought(monkeypatch):
    """Costs stand for sizes: 6 the teacher, 4 the control as wide as it, 3 the narrow control, 2 the student."""
    models = replace(make_models(), full_width=make_bert(4))
    clock = CostClock(monkeypatch, lambda layers, *_: layers)
    (point,) = latency.measure_speed(models, CONDITIONS, [(1, 8)], Budget(0.5), clock)
    assert point.depth_speedup == pytest.approx(2)
    assert point.width_speedup == pytest.approx(4 / 3)
    assert point.speedup == pytest.approx(point.depth_speedup * point.attention_speedup)


def test_every_block_of_a_point_runs_copies_of_its_own(monkeypatch):
    clock = CostClock(monkeypatch, lambda layers, batch, length: layers)
    measure(clock, batch_sizes=(1,), lengths=(8,))
    layers = [model.config.num_hidden_layers for model in clock.models.values()]
    assert {count: layers.count(count) for count in (6, 3, 2)} == dict.fromkeys((6, 3, 2), BLOCKS)


def test_without_control_the_parts_are_null_with_a_reason(monkeypatch):
    point = measure(CostClock(monkeypatch, lambda layers, *_: layers), control=False)[0]
    assert point.speedup == pytest.approx(3)
    assert (point.depth_speedup, point.attention_speedup) == (None, None)
    assert point.reason == latency.NO_CONTROL


def test_lengths_beyond_the_position_table_are_marked(monkeypatch):
    points = measure(CostClock(monkeypatch, lambda layers, *_: layers), lengths=(32, 40), batch_sizes=(1,))
    assert [point.speed_only for point in points] == [False, True]
    assert points[1].speedup == pytest.approx(3)


def test_out_of_memory_is_a_null_point_and_the_rest_goes_on(monkeypatch):
    def cost(layers, batch, length):
        if batch == 2 and length == 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return layers

    points = measure(CostClock(monkeypatch, cost))
    assert [point.reason for point in points if point.reason] == ["out of memory"]
    assert [point.speedup is None for point in points] == [False, False, True, False]
    assert set(to_json(points[2])) >= DESIGN_FIELDS


def test_a_bug_in_the_model_is_not_hidden(monkeypatch):
    def cost(layers, batch, length):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        measure(CostClock(monkeypatch, cost))


def test_points_that_cannot_pay_are_not_tried(monkeypatch):
    seen = set()

    def cost(layers, batch, length):
        seen.add((batch, length))
        return 10 * layers * batch * length / 8

    points = measure(CostClock(monkeypatch, cost), batch_sizes=(1, 200), lengths=(8,), seconds=0.1)
    assert seen == {(1, 8)}
    assert "budget" in points[1].reason


def test_all_points_share_a_budget(monkeypatch):
    clock = CostClock(monkeypatch, lambda layers, *_: 10 * layers)
    grid = list(product((1, 2), (8, 16)))
    points = latency.measure_speed(make_models(control=False), CONDITIONS, grid, Budget(1.0, max_seconds=2.3), clock)
    assert [point.speedup is None for point in points] == [False, False, True, True]
    assert points[2].reason == "did not fit into the 2.3 s for all points"
    assert clock() < 2.3


def test_compile_takes_all_models_before_anything_is_timed(monkeypatch):
    compiled, calls = [], []

    def pretend(model):
        compiled.append(model.config.num_hidden_layers)

        def call(**inputs):
            calls.append(model.config.num_hidden_layers)
            return model(**inputs)

        return call

    monkeypatch.setattr(torch, "compile", pretend)
    clock = CostClock(monkeypatch, lambda layers, *_: layers)
    points = latency.measure_speed(make_models(), COMPILED, [(1, 8), (1, 40)], Budget(0.05), clock)
    assert sorted(compiled) == [2, 2, 3, 3, 6, 6]
    assert calls[:3] == [6, 2, 3]  # in order once, then shuffled rounds
    assert all(point.compiled for point in points)
    assert points[0].speedup == pytest.approx(3)


def test_a_model_that_cannot_be_compiled_is_a_null_point(monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    def fail(**inputs):
        raise TorchDynamoException("no backend\nlong story")

    monkeypatch.setattr(torch, "compile", lambda model: fail)
    noise = latency.measure_noise(make_bert(2), COMPILED, 1, 8, 0.1)
    assert noise.reason == "torch.compile failed: no backend"


def test_noise_of_the_teacher_against_itself(monkeypatch):
    clock = CostClock(monkeypatch, lambda layers, *_: layers)
    noise = latency.measure_noise(make_bert(2), CONDITIONS, 1, 8, 0.2, clock)
    assert noise == NoisePoint(batch_size=1, length=8, ratio=1.0, low=1.0, high=1.0)


def test_noise_on_the_real_clock_has_an_interval_around_its_ratio():
    noise = latency.measure_noise(make_bert(2), CONDITIONS, 1, 8, 0.1)
    assert 0 < noise.low <= noise.ratio <= noise.high


def find_crossover(clock, lengths=(8, 128), control: bool = True):
    points = measure(clock, batch_sizes=(1,), lengths=lengths)
    return latency.crossover_length(points, make_models(control), CONDITIONS, 0.5, clock)


def linear_student(layers, batch, length):
    """Control quadratic in the length, student linear, equal at 50 tokens; the teacher always slower."""
    return {6: 20.0, 3: (length / 50) ** 2, 2: length / 50}[layers]


def test_crossover_is_narrowed_by_bisection(monkeypatch):
    length, reason = find_crossover(CostClock(monkeypatch, linear_student))
    assert (length, reason) == (56, None)  # the first multiple of 8 above 50


def test_crossover_at_the_first_length_needs_no_bisection(monkeypatch):
    assert find_crossover(CostClock(monkeypatch, linear_student), lengths=(64, 128)) == (64, None)


def test_no_crossover_says_up_to_where(monkeypatch):
    length, reason = find_crossover(CostClock(monkeypatch, linear_student), lengths=(8, 32))
    assert length is None
    assert "up to 32 tokens" in reason


def test_a_lucky_short_length_is_no_crossover(monkeypatch):
    def cost(layers, batch, length):
        return {6: 20.0, 3: 1.01 if length == 8 else (length / 50) ** 2, 2: 1.0 if length == 8 else length / 50}[
            layers
        ]

    assert find_crossover(CostClock(monkeypatch, cost), lengths=(8, 32, 64)) == (56, None)


def test_no_control_no_crossover(monkeypatch):
    clock = CostClock(monkeypatch, linear_student)
    assert find_crossover(clock, control=False) == (None, latency.NO_CONTROL)
