"""The one place that reads the clock."""

from time import perf_counter


def now() -> float:
    """Return a monotonic time in seconds; only differences mean something."""
    return perf_counter()
