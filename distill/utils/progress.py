"""One progress bar for all long work: it moves on a terminal, and in a log file writes a line every half minute."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_ON_A_TERMINAL, SECONDS_IN_A_FILE = 0.5, 30.0


def progress_bar(items: Iterable[Any] | None = None, *, name: str, unit: str, **how: Any) -> tqdm:
    """Return a bar over ``items``, or one that is moved by hand.

    Args:
        name: of the work; it stands in front of the bar.
        unit: what is counted, in the singular.
        how: ``total``, ``initial``, ``leave``, ``delay`` and ``disable`` of tqdm.
    """
    interval = SECONDS_ON_A_TERMINAL if sys.stderr.isatty() else SECONDS_IN_A_FILE
    return tqdm(items, desc=name, unit=unit, mininterval=interval, **how)
