"""How every script starts and ends: one-line errors for users, quiet libraries."""

import argparse
import gc
import logging
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from distill.utils.errors import SharedError, UserError, choices_hint, memory_problem, storage_problem
from distill.utils.interrupts import Interrupted, ignore_signals, raise_on_signals

EXIT_USER_ERROR = 2
MAX_LINE = 1000
"""Characters of a message; longer than any of ours is what it quotes from a file."""
SECONDS_TO_SPEAK, SECONDS_TO_END = 5.0, 60.0
"""For the main process to tell a mistake, and to end; leaving torch takes seconds on a busy machine."""
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
EXIT_SIGNAL = 128
"""Added to the number of the signal that ended a process, as a shell does."""


def quiet_libraries() -> None:
    """Silence load reports, download bars and advice of the libraries below us; their errors still show.

    Set before transformers and datasets are imported, so that it costs no import time.
    A value that the user already exported is left alone.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # DeepSpeed writes to stdout, where our results go, that it found no GPU; its own level is set when it is imported.
    logging.getLogger("DeepSpeed").addFilter(lambda line: line.levelno >= logging.ERROR)
    # Of language models accelerate says at every checkpoint that two of their matrices are one.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without the garbage collector, which would look at all modules again whenever some more are there.

    What was imported stays to the end, so that later collections leave it out as well: each would take a quarter of a
    second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def tensors_alone() -> Iterator[None]:
    """Have torch refuse every pickle that holds more than tensors while the block runs, whoever reads it.

    DeepSpeed loads its shards of a checkpoint with weights_only=False, which would run what a pickle asks for.
    """
    before = os.environ.get(WEIGHTS_ONLY)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[WEIGHTS_ONLY]
        else:
            os.environ[WEIGHTS_ONLY] = before


class Parser(argparse.ArgumentParser):
    """A command line without a configuration file, whose mistakes are one line."""

    def format_help(self) -> str:
        """Return the help with what is required in its line of usage; the rest is listed below it."""
        required = [action for action in self._actions if action.required]
        named = [f"{action.option_strings[0]} {action.metavar}" for action in required]
        self.usage = " ".join(["%(prog)s", *named, "[--OPTION VALUE ...]"])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Refuse an unknown option here, where the known ones are at hand to name the nearest."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            raise UserError(f"unknown option {unknown[0]}; {choices_hint(unknown[0], known)}")
        return options, unknown


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def positive_seconds(text: str) -> float:
    """Read a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def writable_folder(name: str, option: str = "--output") -> Path:
    """Create the output folder before minutes are spent on what could not be written."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {name} cannot be created: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{option} {name}: no write permission")
    return folder


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and leave the process with its exit code (None counts as 0).

    A :class:`UserError` becomes one ``error: …`` line on stderr and exit code 2, Ctrl-C and SIGTERM one line and
    exit code 130 or 143, and storage that is full or closed to us, or memory that gives out, is a user's mistake too.
    Anything else is a bug of ours and keeps its traceback.
    """
    raise_on_signals()
    quiet_libraries()
    threading.excepthook = _end_thread
    try:
        with tensors_alone():
            code = main()
        sys.stdout.flush()
    except UserError as error:
        let_main_process_speak(error)
        print_error(str(error))
        code = EXIT_USER_ERROR
    except Interrupted as interrupt:
        ignore_signals()
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            name = signal.Signals(interrupt.number).name
            print(f"stopped by {name}; the same command goes on from what was saved", file=sys.stderr, flush=True)
        code = EXIT_SIGNAL + interrupt.number
    except BrokenPipeError:
        # The reader went away (`… | head`): Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        problem = storage_problem(error) or memory_problem(error)
        if problem is None:
            raise
        print_error(problem)
        code = EXIT_USER_ERROR
    sys.exit(code or 0)


def _end_thread(ended: threading.ExceptHookArgs) -> None:
    """Leave out the traceback of a thread that storage has ended: TensorBoard's tells who next writes to it."""
    if ended.exc_value is None or storage_problem(ended.exc_value) is None:
        threading.__excepthook__(ended)


def let_main_process_speak(error: UserError) -> None:
    """Wait on other processes than the main one: it tells the mistakes that all find, and its end ends them.

    What another process alone has found, it tells after this moment.
    """
    if os.environ.get("RANK", "0") != "0":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SECONDS_TO_END if isinstance(error, SharedError) else SECONDS_TO_SPEAK)


def print_error(message: str) -> None:
    """Print ``error: message`` as one line on stderr, below whatever progress bar stood there.

    A message may quote a file: what would move the cursor or colour the terminal is shown as an escape, and a quote
    without end is cut in the middle.
    """
    if len(message) > MAX_LINE:
        message = f"{message[: MAX_LINE // 2]} ... {message[-MAX_LINE // 2 :]}"
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(message.split()))
    print(f"error: {line}", file=sys.stderr, flush=True)
