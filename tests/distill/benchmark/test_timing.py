"""Interleaving, warm-up and intervals under a clock that the test owns."""

import numpy as np
import pytest
import torch

from distill.benchmark import timing
from distill.utils.errors import is_out_of_memory


class FakeMachine:
    """A clock that only moves when a function 'works', and a slowdown that all functions share."""

    def __init__(self) -> None:
        self.time = 0.0
        self.calls: list[str] = []
        self.slowdown = 1.0

    def clock(self) -> float:
        return self.time

    def work(self, name: str, seconds: float):
        def function() -> None:
            self.calls.append(name)
            self.time += seconds * self.slowdown

        return function


def test_every_round_runs_every_function_once_in_changing_order():
    machine = FakeMachine()
    functions = {"a": machine.work("a", 0.01), "b": machine.work("b", 0.02)}
    times = timing.time_interleaved(lambda: functions, seconds=1.0, clock=machine.clock)
    rounds = [tuple(machine.calls[i : i + 2]) for i in range(0, len(machine.calls), 2)]
    assert {frozenset(order) for order in rounds} == {frozenset("ab")}
    assert {("a", "b"), ("b", "a")} == set(rounds)
    assert times["a"].shape == times["b"].shape == (timing.BLOCKS, 3)
    np.testing.assert_allclose(times["a"], 0.01)
    np.testing.assert_allclose(times["b"], 0.02)
    assert 0.8 < machine.time < 1.0


def test_every_block_has_functions_of_its_own_whose_first_round_is_not_timed():
    machine = FakeMachine()
    made = 0

    def prepare():
        nonlocal made
        made += 1
        first, later = machine.work("first", 0.09), machine.work("later", 0.01)
        calls = iter([first])
        return {str(made): lambda: next(calls, later)()}

    times = timing.time_interleaved(prepare, seconds=1.0, clock=machine.clock)
    assert made == timing.BLOCKS
    assert machine.calls.count("first") == timing.BLOCKS
    ((_, seconds),) = times.items()
    np.testing.assert_allclose(seconds, 0.01)


def test_warm_up_goes_on_until_times_settle():
    machine = FakeMachine()
    calls = 0

    def warming() -> None:
        nonlocal calls
        calls += 1
        machine.time += 0.01 if calls > 9 else 0.05 - 0.004 * calls

    times = timing.time_interleaved(lambda: {"warming": warming}, seconds=5.0, clock=machine.clock)
    np.testing.assert_allclose(times["warming"], 0.01)


def test_a_slow_function_overruns_its_budget_for_one_round_a_block_but_no_further():
    machine = FakeMachine()
    slow = {"slow": machine.work("slow", 1.0)}
    times = timing.time_interleaved(lambda: slow, seconds=0.5, clock=machine.clock)
    assert times["slow"].shape == (timing.BLOCKS, 1)
    assert machine.calls == ["slow"] * (1 + timing.BLOCKS)


def test_a_hopeless_point_is_given_up_after_one_round():
    machine = FakeMachine()
    slow = {"slow": machine.work("slow", 10.0)}
    with pytest.raises(timing.PointError, match="30 times the budget"):
        timing.time_interleaved(lambda: slow, seconds=0.5, clock=machine.clock)
    assert machine.calls == ["slow"]


def test_the_device_is_waited_for_before_and_after_every_call():
    machine = FakeMachine()
    calls = {"call": machine.work("call", 0.1)}
    timing.time_interleaved(
        lambda: calls, seconds=1.0, clock=machine.clock, synchronize=lambda: machine.calls.append("wait")
    )
    assert machine.calls[:6] == ["wait", "call", "wait"] * 2


def test_ratio_is_of_medians_and_ignores_shared_slowdowns():
    generator = np.random.default_rng(0)
    slowdown = generator.choice([1.0, 1.0, 5.0], size=(6, 10))
    ratio, low, high = timing.ratio_of_medians(2.0 * slowdown, 1.0 * slowdown)
    assert (ratio, low, high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_interval_is_that_of_a_hand_computed_case():
    # Blocks' ratios e^0.1, e^0.2, e^0.3: mean 0.2, deviation 0.1, t(2 degrees of freedom) = 4.3027.
    numerator = np.exp([[0.1], [0.2], [0.3]])
    half = 4.3027 * 0.1 * (2 / 3) ** 0.5
    expected = np.exp([0.2, 0.2 - half, 0.2 + half])
    assert timing.ratio_of_medians(numerator, np.ones((3, 1))) == pytest.approx(tuple(expected), rel=1e-4)


def test_the_ratio_is_that_of_the_typical_seconds():
    first, second = np.random.default_rng(2).lognormal(size=(2, 6, 5))
    ratio, _, _ = timing.ratio_of_medians(first, second)
    assert ratio == pytest.approx(timing.typical_seconds(first) / timing.typical_seconds(second))


def test_a_repetition_falls_into_the_interval_where_copies_differ_by_more_than_rounds():
    generator = np.random.default_rng(1)

    def measured() -> tuple[float, float, float]:
        layout = generator.normal(scale=0.01, size=(2, timing.BLOCKS, 1))
        first, second = np.exp(layout + generator.normal(scale=0.01, size=(2, timing.BLOCKS, 20)))
        return timing.ratio_of_medians(first, second)

    runs = [measured() for _ in range(400)]
    inside = [low <= again[0] <= high for (_, low, high), again in zip(runs[::2], runs[1::2], strict=True)]
    assert 0.9 <= np.mean(inside) < 1.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 10 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_memory_exhaustion_is_told_from_bugs(error, expected):
    assert is_out_of_memory(error) is expected
