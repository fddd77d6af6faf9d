"""The table of layer costs: what is timed, by a clock that counts layers, and how it is kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.tiny_bert import tiny_bert

from distill.benchmark import latency_table
from distill.benchmark.conditions import Conditions
from distill.benchmark.latency_table import LatencyTable, kept_table, measure_speedup, measure_table
from distill.config.shape_search import StudentShape
from distill.utils.errors import UserError
from distill.utils.record_json import to_json

CONDITIONS = Conditions("cpu", torch.float32, vocabulary_size=50)
KINDS = [StudentShape(1, 16, 64, 2)]


@pytest.fixture
def built(monkeypatch):
    """Time a model by its layers and units instead of a clock; return the shapes of all that are built."""
    shapes = []

    def build(shape):
        shapes.append(shape)
        size = {"hidden_size": shape.hidden_size, "intermediate_size": shape.intermediate_size}
        return tiny_bert(num_hidden_layers=shape.num_layers, num_attention_heads=shape.num_heads, **size)

    def time_models(models, conditions, batch_size, length, seconds):
        assert (batch_size, length) == (1, 8)
        sizes = {name: (each.config.num_hidden_layers, each.config.intermediate_size) for name, each in models.items()}
        return {name: np.full((6, 2), 1.0 + layers * units) for name, (layers, units) in sizes.items()}

    monkeypatch.setattr(latency_table, "time_models", time_models)
    return shapes, build


def test_a_table_is_measured_in_shares_of_the_teacher(built):
    shapes, build = built
    teacher = build(StudentShape(6, 16, 64, 2))
    shapes.clear()
    table = measure_table(teacher, build, KINDS, 6, CONDITIONS, 8, 0.1)
    assert [(shape.num_layers, shape.intermediate_size) for shape in shapes] == [(1, 64), (4, 64), (1, 16), (4, 16)]
    assert [each.shape.intermediate_size for each in table.costs] == [64, 48, 32, 16]
    for each in table.costs:
        units = each.shape.intermediate_size
        assert each.one == pytest.approx((1 + units) / 385)
        assert each.more == pytest.approx(units / 385)
        assert each.speedup(6) == pytest.approx(385 / (1 + 6 * units))
        value, low, high = measure_speedup(teacher, build(each.at(6)), CONDITIONS, 8, 0.1)
        assert (value, low, high) == pytest.approx((each.speedup(6),) * 3)


def test_a_teacher_of_one_layer_has_students_of_one(built):
    _, build = built
    table = measure_table(build(KINDS[0]), build, KINDS, 1, CONDITIONS, 8, 0.1)
    assert {shape.num_layers for shape, _ in table.shapes} == {1}
    assert [each.more for each in table.costs] == [0.0] * 4


@pytest.mark.parametrize(("spread", "noisy"), [(1.05, False), (1.5, True)])
def test_a_table_of_wide_intervals_is_noisy(built, monkeypatch, spread, noisy):
    _, build = built
    steady = latency_table.time_models

    def time_models(*arguments):
        times = steady(*arguments)
        return times | {"one": times["one"] * spread ** np.array([[0], [1]] * 3)}

    monkeypatch.setattr(latency_table, "time_models", time_models)
    assert measure_table(build(KINDS[0]), build, KINDS, 2, CONDITIONS, 8, 0.1).noisy is noisy


def test_a_table_is_kept_for_the_same_machine_teacher_and_length(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return LatencyTable(2, (latency_table.LayerCost(KINDS[0], 0.5, 0.25),))

    first = kept_table(tmp_path, {"length": 8}, measure)
    assert kept_table(tmp_path, {"length": 8}, measure) == first
    assert len(calls) == 1
    kept_table(tmp_path, {"length": 16}, measure)
    kept_table(None, {"length": 8}, measure)
    assert len(calls) == 3


def test_a_look_reads_a_table_and_writes_none_and_a_noisy_one_is_not_kept(tmp_path):
    table = LatencyTable(2, (latency_table.LayerCost(KINDS[0], 0.5, 0.25),))
    assert kept_table(tmp_path, {}, lambda: table, only_look=True) == table
    noisy = replace(table, noisy=True)
    assert kept_table(tmp_path, {}, lambda: noisy) == noisy
    assert not list(tmp_path.iterdir())
    kept_table(tmp_path, {}, lambda: table)
    assert kept_table(tmp_path, {}, pytest.fail, only_look=True) == table


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "{}", '{"num_layers": 6, "costs": []}', '{"num_layers": 0, "costs": []}'),
        json.dumps({"num_layers": 6, "costs": [{"shape": to_json(KINDS[0]), "one": 0, "more": 0}]}),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    kept_table(tmp_path, {}, lambda: LatencyTable(2, (latency_table.LayerCost(KINDS[0], 0.5, 0.25),)))
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        kept_table(tmp_path, {}, pytest.fail)
    words = str(refused.value)
    assert words.startswith(str(path))
    assert words.endswith("; remove it to have it measured again")
    assert words.count(";") == 1
