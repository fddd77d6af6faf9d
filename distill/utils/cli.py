"""How every script starts and ends: one-line errors for users, quiet libraries."""

import argparse
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from distill.tasks import CUSTOM
from distill.utils.errors import SharedError, UserError, choices_hint, storage_problem
from distill.utils.interrupts import Interrupted, ignore_signals, raise_on_signals

EXIT_USER_ERROR = 2
MAX_LINE = 1000
"""Characters of a message; longer than any of ours is what it quotes from a file."""
SECONDS_TO_SPEAK, SECONDS_TO_END = 5.0, 60.0
"""For the main process to tell a mistake, and to end; leaving torch takes seconds on a busy machine."""
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
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()


class Parser(argparse.ArgumentParser):
    """A command line without a configuration file, whose mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Refuse an unknown option here, where the known ones are at hand to name the nearest."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            raise UserError(f"unknown option {unknown[0]}; {choices_hint(unknown[0], known)}")
        return options, unknown


CUSTOM_ONLY = ("validation_fraction", "text_columns", "label_names", "regression")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--data.dir`` and its like; what is not given is absent from the namespace: DataConfig has the defaults."""

    def add(name: str, **settings: Any) -> None:
        parser.add_argument(f"--data.{name}", default=argparse.SUPPRESS, **settings)

    add(
        "dir",
        metavar="PATH",
        help="folder of <task>/<split> files, `embedded`, or a file (task custom); else the Hub",
    )
    add("max_length", type=positive, metavar="TOKENS", help="texts are cut there (default 128)")
    add("seed", type=int, metavar="N", help="of the embedded data and of a split-off validation (default 0)")
    add("validation_fraction", type=float, metavar="SHARE", help="task custom without a validation file (default 0.1)")
    add("text_columns", nargs="+", metavar="NAME", help="task custom: one or two text columns; else found by name")
    add("label_column", metavar="NAME", help="task custom: column to predict (default label, or found by name)")
    add("label_names", nargs="+", metavar="NAME", help="task custom: class names in label order")
    add("regression", action="store_true", help="task custom: the label is a number")


def data_options(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """Return the data settings that were given, by their names in DataConfig.

    Raises:
        UserError: one that only task ``custom`` reads was given with another ``task``.
    """
    given = {name.removeprefix("data."): value for name, value in vars(options).items() if name.startswith("data.")}
    given |= {name: _without_brackets(given[name]) for name in ("text_columns", "label_names") if name in given}
    share = given.get("validation_fraction", 0.1)
    if not 0 < share < 0.5:
        raise UserError(f"--data.validation_fraction is {share}: give a share between 0 and 0.5")
    useless = [name for name in CUSTOM_ONLY if name in given]
    if useless and task != CUSTOM:
        raise UserError(f"--data.{useless[0]} works only with --task {CUSTOM}; {task} has its own columns and labels")
    return given


def _without_brackets(names: list[str]) -> list[str]:
    """Read a list as the commands with a configuration file do: ``'[a, b]'`` is ``a b``."""
    if len(names) > 1 or not (names[0].startswith("[") and names[0].endswith("]")):
        return names
    return [name.strip().strip("\"'") for name in names[0][1:-1].split(",")]


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


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
    exit code 130 or 143, and storage that is full or closed to us is a user's mistake too. Anything else is a bug of
    ours and keeps its traceback.
    """
    raise_on_signals()
    quiet_libraries()
    # DeepSpeed loads its shards of a checkpoint with weights_only=False, which would run what a pickle asks for.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
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
        problem = storage_problem(error)
        if problem is None:
            raise
        print_error(problem)
        code = EXIT_USER_ERROR
    sys.exit(code or 0)


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
