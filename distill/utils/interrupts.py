"""SIGTERM and Ctrl-C end a process at once, but a training step is finished and saved first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """Of the signal."""


class _Postponed:
    """Signal handlers belong to the process, and so does this."""

    active = False
    received = 0


def raise_on_signals() -> None:
    """Let SIGTERM and SIGINT raise :class:`Interrupted` wherever the process is, unless that is postponed."""
    for number in SIGNALS:
        signal.signal(number, _handle)


def ignore_signals() -> None:
    """Let a process that is ending already end in peace: launchers repeat the signal of the terminal."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _handle(number: int, frame: FrameType | None) -> None:
    if not _Postponed.active:
        raise Interrupted(number)
    _Postponed.received = number


@contextmanager
def postponed() -> Iterator[None]:
    """Only take note of signals; whoever is inside asks :func:`received` and ends when it is ready to.

    Raises:
        Interrupted: on leaving, when a signal came after the last time that somebody asked.
    """
    _Postponed.active, _Postponed.received = True, 0
    try:
        yield
    finally:
        _Postponed.active = False
    if _Postponed.received:
        raise Interrupted(_Postponed.received)


def received() -> int:
    """Return the number of the signal that was taken note of, or 0."""
    return _Postponed.received
