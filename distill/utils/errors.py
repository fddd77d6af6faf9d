"""The one exception that is a user's mistake."""

import difflib
import errno
import os
import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend; the message is one line that names the thing and the way out."""


class DivergedError(UserError):
    """A loss is not finite any more."""


class SharedError(UserError):
    """A mistake that the main process has found and tells; the other processes only end."""


def nearest(value: object, names: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the name that is most like ``value``, or None; of two about as near, the one that begins as it does."""
    text = str(value)[:100]

    def likeness(name: str) -> float:
        ratio = difflib.SequenceMatcher(None, name, text).ratio()
        beginning = sum(name[:end] == text[:end] for end in range(1, min(len(text), LONGEST_BEGINNING) + 1))
        return ratio + beginning * WEIGHT_OF_BEGINNING * (1 - ratio) if ratio >= cutoff else 0.0

    best = max(names, key=likeness, default=None)
    return best if best is not None and likeness(best) > 0 else None


def choices_hint(value: object, choices: Iterable[str]) -> str:
    """Name the valid choices and the nearest match to ``value``, for the end of an error message."""
    names = list(choices)
    near = nearest(value, names)
    suggestion = f"; did you mean {near!r}?" if near else ""
    return f"choose one of {', '.join(names)}{suggestion}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def loading_problem(error: BaseException) -> str:
    """Return in one line why a library could not load a checkpoint.

    Raises:
        BaseException: ``error`` itself, where memory has given out, of which no checkpoint is to blame.
    """
    if is_out_of_memory(error):
        raise error
    if "trust_remote_code" in str(error):
        return "it brings code of its own"
    if "Weights only load failed" in str(error):
        return "its weights are a pickle that holds more than tensors; save them as safetensors"
    return first_line(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell memory that gave out, which every library says in its own way, from a bug."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)


def memory_problem(error: BaseException) -> str | None:
    """Return in one line that memory gave out and what helps, if that is what ``error`` or its cause says."""
    cause: BaseException | None = error
    while cause is not None and not is_out_of_memory(cause):
        cause = cause.__cause__
    if cause is None:
        return None
    wanted = re.search(r"allocate (\d+(?:\.\d+)?) ?([a-z]+)", str(cause), re.IGNORECASE)
    amount = f"{float(wanted[1]):,.10g}" if wanted else ""
    more = f" ({amount} {wanted[2]} more were wanted)" if wanted else ""
    return (
        f"out of memory{more}; give a smaller batch_size or data.max_length, end other programs, or use a machine "
        "with more"
    )


LONGEST_BEGINNING, WEIGHT_OF_BEGINNING = 4, 0.1
"""Letters that count, and how much each of them does, of a beginning that two names share: as Winkler chose them."""
NO_MEMORY = ("not enough memory", "can't allocate memory", "cublas_status_alloc_failed", "std::bad_alloc")
"""How torch's CPU allocator, CUDA's libraries and C++ say it, in small letters."""
SHORT_WRITES = re.compile(r"Not enough free space to write|\d+ requested and \d+ written")
"""What numpy says of an array that it could not write whole, without a number."""
WAYS_OUT = {
    errno.ENOSPC: "free some",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) or free some space",
    errno.EROFS: "make it writable, or choose another folder",
    errno.EACCES: "change its permissions, or choose another",
    errno.EPERM: "change its permissions, or choose another",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "see to the disk",
}
"""What goes wrong with storage in the middle of a run through no fault of ours, and what the user can do."""


def _is_short_write(text: str) -> bool:
    """Tell an error that says in words that less was written than should be; torch's reader has one alike."""
    of_torch = "inline_container.cc" in text and "PytorchStreamReader" not in text
    return of_torch or SHORT_WRITES.search(text) is not None


def storage_problem(error: BaseException) -> str | None:
    """Return in one line what is wrong with the storage, if that is what ``error`` says, else None.

    safetensors, torch, numpy and shutil report a full disk in words alone, as an error of their own.
    """
    cause: BaseException | None = error
    while cause is not None:
        words = re.search(r"os error (\d+)|\[Errno (\d+)\]", str(cause))
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None and words:
            number = int(words.group(1) or words.group(2))
        if number is None and _is_short_write(str(cause)):
            number = errno.ENOSPC
        if number in WAYS_OUT:
            named = isinstance(cause, OSError) and cause.filename
            place = f": {cause.filename}" if named else " where the run folder, its cache or TMPDIR is"  # type: ignore[attr-defined]
            return f"{os.strerror(number).lower()}{place}; {WAYS_OUT[number]}, and start the same command again"
        cause = cause.__cause__
    return None
