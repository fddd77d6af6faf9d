"""How many threads what is timed has."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def thread_counts(device: torch.device | str = "cpu") -> list[int]:
    """Return on how many threads to time: one, and as many as torch has; on a GPU the latter alone."""
    every = torch.get_num_threads()
    return sorted({1, every}) if torch.device(device).type == "cpu" else [every]


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch have so many threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
