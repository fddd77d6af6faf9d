"""Interleaving, warm-up and intervals under a clock that the test owns."""

import numpy as np
import pytest
import torch

from distill import timing


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
    times = timing.time_interleaved(functions, seconds=1.0, clock=machine.clock)
    rounds = [tuple(machine.calls[i : i + 2]) for i in range(0, len(machine.calls), 2)]
    assert {frozenset(order) for order in rounds} == {frozenset("ab")}
    assert {("a", "b"), ("b", "a")} == set(rounds)
    assert len(times["a"]) == len(times["b"]) >= 20
    np.testing.assert_allclose(times["a"], 0.01)
    np.testing.assert_allclose(times["b"], 0.02)
    assert machine.time == pytest.approx(1.0, abs=0.031)


def test_warm_up_goes_on_until_times_settle():
    machine = FakeMachine()
    calls = 0

    def warming() -> None:
        nonlocal calls
        calls += 1
        machine.time += 0.01 if calls > 9 else 0.05 - 0.004 * calls

    times = timing.time_interleaved({"warming": warming}, seconds=5.0, clock=machine.clock)
    np.testing.assert_allclose(times["warming"], 0.01)


def test_a_slow_function_overruns_its_budget_for_six_pairs_but_no_further():
    machine = FakeMachine()
    times = timing.time_interleaved({"slow": machine.work("slow", 1.0)}, seconds=0.5, clock=machine.clock)
    assert len(times["slow"]) == timing.MIN_ROUNDS


def test_a_hopeless_point_is_given_up_after_one_round():
    machine = FakeMachine()
    with pytest.raises(timing.PointError, match="30 times the budget"):
        timing.time_interleaved({"slow": machine.work("slow", 10.0)}, seconds=0.5, clock=machine.clock)
    assert machine.calls == ["slow"]


def test_the_device_is_waited_for_before_and_after_every_call():
    machine = FakeMachine()
    function = machine.work("call", 0.1)
    timing.time_interleaved(
        {"call": function}, seconds=1.0, clock=machine.clock, synchronize=lambda: machine.calls.append("wait")
    )
    assert machine.calls[:6] == ["wait", "call", "wait"] * 2


def test_ratio_is_of_medians_and_ignores_shared_slowdowns():
    generator = np.random.default_rng(0)
    slowdown = generator.choice([1.0, 1.0, 5.0], size=60)
    ratio, low, high = timing.ratio_of_medians(2.0 * slowdown, 1.0 * slowdown)
    assert (ratio, low, high) == pytest.approx((2.0, 2.0, 2.0))


def test_null_comparisons_cover_one():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        first, second = generator.lognormal(sigma=0.1, size=(2, 25))
        _, low, high = timing.ratio_of_medians(first, second)
        covered += low <= 1.0 <= high
    assert covered >= 180


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
    assert timing.is_out_of_memory(error) is expected
