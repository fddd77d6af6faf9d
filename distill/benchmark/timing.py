"""Time functions against each other: interleaved rounds in blocks, medians, and an interval from the blocks.

A time taken alone says more about the machine's other work than about the function. Here every round calls each
function once, in shuffled order, so that what slows the machine slows all of them. Processes still differ by about
1 %, more than an interval from the rounds of one allows for: so the rounds come in blocks, each on fresh copies, and
the interval comes from how much the few blocks differ.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy import stats

from distill.benchmark.conditions import Conditions
from distill.utils.errors import is_out_of_memory

BLOCKS = 6  # Student's t over 6 blocks is 2.57; with fewer it grows fast, with more the copies cost too much
MIN_ROUNDS = BLOCKS
MAX_ROUNDS = 2000
MAX_OVERRUN = 30  # a point may take this many times its budget to reach MIN_ROUNDS, then it is given up
WARM_UP_WINDOW = 3  # warm when the median of the last three rounds is near that of the three before
WARM_UP_TOLERANCE = 0.05
CONFIDENCE = 0.95
OUT_OF_MEMORY = "out of memory"

Clock = Callable[[], float]
"""Seconds, monotonic."""
Calls = Mapping[str, Callable[[], Any]]
"""What is timed against each other, by name."""
Times = Mapping[str, np.ndarray]
"""Name to the seconds of every call, (blocks, rounds), entry by entry from the same round."""


class PointError(Exception):
    """This point cannot be measured; the message is the reason in the record."""


# ---------------------------------------------------------------- what cannot be measured


def check_affordable(round_seconds: float, seconds: float) -> None:
    """Raise PointError if the fewest rounds, of ``round_seconds`` each, are far over the budget of ``seconds``."""
    needed = MIN_ROUNDS * round_seconds
    if needed > MAX_OVERRUN * seconds:
        raise PointError(f"{MIN_ROUNDS} rounds would take {needed:.0f} s, over {MAX_OVERRUN} times the budget")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn exhausted memory into the reason of a null point."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise PointError(OUT_OF_MEMORY) from None


# ---------------------------------------------------------------- many points


@dataclass(frozen=True)
class Budget:
    """How long measuring may take, in seconds."""

    seconds_per_point: float
    """A slow point overruns it to reach 6 rounds."""
    max_seconds: float = math.inf
    """Of all points together."""


@dataclass(frozen=True)
class TimedPoint:
    """The times of one batch size and length, or the reason why there are none."""

    batch_size: int
    length: int
    times: Times = field(default_factory=dict)
    reason: str | None = None


def time_points(
    grid: Iterable[tuple[int, int]],
    time_point: Callable[[int, int], Times],
    budget: Budget,
    clock: Clock = perf_counter,
) -> Iterator[TimedPoint]:
    """Time one point of a grid after the other, and do not try those that the budget cannot pay.

    Args:
        grid: pairs of batch size and length in tokens, the cheaper ones first.
        time_point: times one of them; its PointError is the reason of a point without times.
        budget: what does not fit has that reason.
        clock: of the whole.
    """
    seconds_per_token = 0.0
    begin = clock()
    for batch_size, length in grid:
        round_seconds = seconds_per_token * batch_size * length
        try:
            check_affordable(round_seconds, budget.seconds_per_point)
            needed = max(budget.seconds_per_point, MIN_ROUNDS * round_seconds)
            if clock() - begin + needed > budget.max_seconds:
                raise PointError(f"did not fit into the {budget.max_seconds:g} s for all points")
            times = time_point(batch_size, length)
        except PointError as error:
            yield TimedPoint(batch_size, length, reason=str(error))
            continue
        # The best rate so far bounds a longer point from below: long ones that cannot pay are not even tried.
        rate = sum(map(typical_seconds, times.values())) / (batch_size * length)
        seconds_per_token = min(seconds_per_token or rate, rate)
        yield TimedPoint(batch_size, length, times)


# ---------------------------------------------------------------- one point


def time_on_device(
    prepare: Callable[[], Calls], conditions: Conditions, seconds: float, clock: Clock = perf_counter
) -> Times:
    """Time forward passes against each other; PointError says why it cannot be done.

    ``prepare`` makes the models and the calls of a block; compiled ones are made once, as compiling takes long.
    """
    is_cuda = torch.device(conditions.device).type == "cuda"
    synchronize = torch.cuda.synchronize if is_cuda else lambda: None
    with memory_errors(), torch.inference_mode():
        if conditions.compiled:
            calls = prepare()
            _compile_now(calls)
            return time_interleaved(lambda: calls, seconds=seconds, clock=clock, synchronize=synchronize)
        return time_interleaved(prepare, seconds=seconds, clock=clock, synchronize=synchronize)


def _compile_now(calls: Calls) -> None:
    """Let torch.compile do its work before anything is timed, afresh for every point.

    Without forgetting the earlier points it would compile for shapes of any length from the second point on, and give
    up compiling at all from the ninth.
    """
    from torch._dynamo.exc import TorchDynamoException

    torch.compiler.reset()
    try:
        for call in calls.values():
            call()
    except TorchDynamoException as error:
        raise PointError(f"torch.compile failed: {str(error).strip().splitlines()[0]}") from None


def time_interleaved(
    prepare: Callable[[], Calls],
    *,
    seconds: float,
    clock: Clock = perf_counter,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Time functions against each other: every round runs each of them once, in a shuffled order.

    Args:
        prepare: makes what to time, by name; called once a block, before the block's rounds.
        seconds: budget of all rounds, warm-up (at most a third) included; overrun to reach one round a block.
        clock: seconds, monotonic.
        synchronize: waits until the device has finished.

    Returns:
        Seconds per call of each function, (6 blocks, rounds), entry by entry from the same round.

    Raises:
        PointError: six rounds would take more than 30 times the budget.
    """
    generator = np.random.default_rng(0)

    def one_round(functions: Calls) -> list[float]:
        names = list(functions)
        taken = [0.0] * len(names)
        for index in generator.permutation(len(names)):
            synchronize()
            start = clock()
            functions[names[index]]()
            synchronize()
            taken[index] = clock() - start
        return taken

    functions = prepare()
    begin = clock()
    warm_up = [one_round(functions)]
    check_affordable(clock() - begin, seconds)
    while not _is_warm(warm_up) and clock() - begin < seconds / 3:
        warm_up.append(one_round(functions))
    round_seconds = sum(np.median(warm_up[-WARM_UP_WINDOW:], axis=0))
    left = (seconds - (clock() - begin)) / BLOCKS
    rounds = max(1, min(MAX_ROUNDS // BLOCKS, int(left / round_seconds) - 1))
    blocks: list[list[list[float]]] = []
    while len(blocks) < BLOCKS:
        if blocks:
            del functions  # before there are new ones: two sets may not fit
            functions = prepare()
            if rounds > 1:  # where it is affordable, a first round fills the caches
                one_round(functions)
        blocks.append([one_round(functions) for _ in range(rounds)])
    return dict(zip(functions, np.array(blocks).transpose(2, 0, 1), strict=True))


def _is_warm(rounds: list[list[float]]) -> bool:
    """Tell whether every function's last rounds took as long as those before them."""
    if len(rounds) < 2 * WARM_UP_WINDOW:
        return False
    before = np.median(rounds[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW], axis=0)
    last = np.median(rounds[-WARM_UP_WINDOW:], axis=0)
    return bool((np.abs(last - before) <= WARM_UP_TOLERANCE * before).all())


# ---------------------------------------------------------------- what the times say


def typical_seconds(times: np.ndarray) -> float:
    """Return the geometric mean over blocks of the median over rounds, of (blocks, rounds) seconds."""
    return float(np.exp(np.log(np.median(times, axis=1)).mean()))


def ratio_of_medians(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float, float]:
    """Return how many times as long one function takes, and where the same measurement would fall again.

    With r_b = log(median(numerator_b) / median(denominator_b)) of block b = 1 … B, their mean m and deviation s, the
    value is exp(m), which is the ratio of the two `typical_seconds`, and the interval the 95 % prediction interval of
    a repetition, exp(m ± t s √(1/B + 1/B)) with the quantile t of B - 1 degrees of freedom.

    Args:
        numerator: seconds, (blocks, rounds), entry by entry from the same round as ``denominator``.
        denominator: likewise.

    Returns:
        The ratio, and the low and the high end of the interval.
    """
    ratios = np.log(np.median(numerator, axis=1) / np.median(denominator, axis=1))
    blocks = len(ratios)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, blocks - 1) * ratios.std(ddof=1) * np.sqrt(2 / blocks)
    mean = ratios.mean()
    return float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half))
