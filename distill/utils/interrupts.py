"""SIGTERM and Ctrl-C end a process at once, but a training step is finished and saved first."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """Of the signal."""


def raise_on_signals() -> None:
    """Let SIGTERM and SIGINT raise :class:`Interrupted` wherever the process is, unless that is postponed."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def ignore_signals() -> None:
    """Let a process that is ending already end in peace: launchers repeat the signal of the terminal."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


class PostponedSignals:
    """A block in which SIGTERM and SIGINT are only taken note of; who is inside asks, and ends when it is ready to.

    Signals reach the main thread alone: in another one nothing is postponed.

    Raises:
        Interrupted: on leaving, when a signal came after the last time that somebody asked.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the last signal that came, or 0."""
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python
        if self.received and error is None:
            raise Interrupted(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
