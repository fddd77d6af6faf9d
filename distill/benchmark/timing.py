"""Time functions against each other: interleaved rounds in blocks, medians, and an interval from the blocks.

A time taken alone says more about the machine's other work than about the function. Here every round calls each
function once, in shuffled order, so that what slows the machine slows all of them. Processes still differ by about
1 %, more than an interval from the rounds of one allows for: so the rounds come in blocks, each on fresh copies, and
the interval comes from how much the few blocks differ.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy import stats

from distill.utils.clock import now

BLOCKS = 6  # Student's t over 6 blocks is 2.57; with fewer it grows fast, with more the copies cost too much
MIN_ROUNDS = BLOCKS
MAX_ROUNDS = 2000
MAX_OVERRUN = 30  # a point may take this many times its budget to reach MIN_ROUNDS, then it is given up
WARM_UP_WINDOW = 3  # warm when the median of the last three rounds is near that of the three before
WARM_UP_TOLERANCE = 0.05
CONFIDENCE = 0.95

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
    prepare: Callable[[], Mapping[str, Callable[[], Any]]],
    *,
    seconds: float,
    clock: Clock = now,
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

    def one_round(functions: Mapping[str, Callable[[], Any]]) -> list[float]:
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
