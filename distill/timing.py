"""Time functions against each other: interleaved rounds, medians, and an interval from the pairs.

A time taken alone says more about the machine's other work than about the function. Here every round calls each
function once, in shuffled order, so that what slows the machine slows all of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from distill.clock import now
from distill.statistics import percentile_interval

MIN_ROUNDS = 6  # the range of 6 pairs covers their median with 97 %; of 5, with less than 95 %
MAX_ROUNDS = 2000
MAX_OVERRUN = 30  # a point may take this many times its budget to reach MIN_ROUNDS, then it is given up
WARM_UP_WINDOW = 3  # warm when the median of the last three rounds is near that of the three before
WARM_UP_TOLERANCE = 0.05
INTERVAL_RESAMPLES = 2000

Clock = Callable[[], float]


class PointError(Exception):
    """This point cannot be measured; the message is the reason in the record."""


def check_affordable(round_seconds: float, seconds: float) -> None:
    """Raise PointError if the fewest rounds, of ``round_seconds`` each, are far over the budget of ``seconds``."""
    needed = MIN_ROUNDS * round_seconds
    if needed > MAX_OVERRUN * seconds:
        raise PointError(f"{MIN_ROUNDS} rounds would take {needed:.0f} s, over {MAX_OVERRUN} times the budget")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell memory exhaustion, which torch's CPU allocator reports as a plain RuntimeError, from a bug."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("not enough memory" in text or "can't allocate memory" in text)


def time_interleaved(
    functions: Mapping[str, Callable[[], Any]],
    *,
    seconds: float,
    clock: Clock = now,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Time functions against each other: every round runs each of them once, in a shuffled order.

    Args:
        functions: what to time, by name.
        seconds: budget of the whole call, warm-up (at most a third) included; overrun to reach 6 rounds.
        clock: seconds, monotonic.
        synchronize: waits until the device has finished.

    Returns:
        Seconds per call of each function, (rounds,), row by row from the same round.

    Raises:
        PointError: six rounds would take more than 30 times the budget.
    """
    generator = np.random.default_rng(0)
    names = list(functions)

    def one_round() -> list[float]:
        taken = [0.0] * len(names)
        for index in generator.permutation(len(names)):
            synchronize()
            start = clock()
            functions[names[index]]()
            synchronize()
            taken[index] = clock() - start
        return taken

    begin = clock()
    warm_up = [one_round()]
    check_affordable(clock() - begin, seconds)
    while not _is_warm(warm_up) and clock() - begin < seconds / 3:
        warm_up.append(one_round())
    rounds: list[list[float]] = []
    while len(rounds) < MIN_ROUNDS or (clock() - begin < seconds and len(rounds) < MAX_ROUNDS):
        rounds.append(one_round())
    return dict(zip(names, np.array(rounds).T, strict=True))


def _is_warm(rounds: list[list[float]]) -> bool:
    """Tell whether every function's last rounds took as long as those before them."""
    if len(rounds) < 2 * WARM_UP_WINDOW:
        return False
    before = np.median(rounds[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW], axis=0)
    last = np.median(rounds[-WARM_UP_WINDOW:], axis=0)
    return bool((np.abs(last - before) <= WARM_UP_TOLERANCE * before).all())


def ratio_of_medians(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float, float]:
    """Return median(numerator) / median(denominator) with a 95 % interval from resampling the pairs."""
    drawn = np.random.default_rng(0).integers(0, len(numerator), (INTERVAL_RESAMPLES, len(numerator)))
    ratios = np.median(numerator[drawn], axis=1) / np.median(denominator[drawn], axis=1)
    low, high = percentile_interval(ratios)
    return float(np.median(numerator) / np.median(denominator)), low, high
