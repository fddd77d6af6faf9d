"""A folder of teachers' outputs that several runs share: who uses what, what is old, and how it goes.

It holds, by their fingerprints, folders of outputs, in ``softmax_students`` students that runs have in common, and in
``stage_tokens`` tokenised texts, which whoever has mapped them goes on reading when they are removed.
Beside each lies ``<name>.lock``: whoever uses an entry holds it in common, whoever removes one holds it alone. The
time of the file is that of the last use.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, remove

NAME = re.compile(r"[0-9a-f]{20}")
ABOUT = "about.json"
STUDENTS, STAGE_TOKENS = "softmax_students", "stage_tokens"
OUTPUTS, STUDENT, TOKENS = "outputs", "softmax student", "tokens"
PLACES = {"": OUTPUTS, STUDENTS: STUDENT, STAGE_TOKENS: TOKENS}
"""Folder below the cache to the kind of what it holds."""


@dataclass(frozen=True)
class Entry:
    """One teacher's outputs on some texts, one student, or the tokens of some texts."""

    path: Path
    kind: str
    bytes: int
    last_used: float
    """Seconds since 1970."""
    about: dict[str, Any] = field(default_factory=dict)
    """What it belongs to; empty for entries of earlier versions."""


class Lease:
    """The use of an entry, from which nobody removes it; ends with :meth:`end` or with the process."""

    def __init__(self, entry: Path) -> None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        self.file = _lock(entry, fcntl.LOCK_SH)
        os.utime(self.file.name)

    def end(self) -> None:
        """Let the entry be removed."""
        self.file.close()


def _lock(entry: Path, how: int) -> IO[bytes]:
    """Hold the lock of an entry; where its file was removed meanwhile, that of the file that came after it.

    Raises:
        BlockingIOError: somebody else holds it, and ``how`` says not to wait.
        UserError: the file system knows no locks.
    """
    path = entry.with_name(f"{entry.name}.lock")
    while True:
        file = open(path, "ab")  # noqa: SIM115  # stays open as long as it is held
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            file.close()
            raise UserError(
                f"cache.dir {entry.parent}: its file system gives no locks ({error.strerror}); give another cache.dir"
            ) from error
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


@contextmanager
def making_room(root: Path) -> Iterator[None]:
    """Let one run at a time look how much room there is and take it, while the block runs."""
    root.mkdir(parents=True, exist_ok=True)
    file = _lock(root / "room", fcntl.LOCK_EX)
    try:
        yield
    finally:
        file.close()


def find_entries(root: Path) -> list[Entry]:
    """Return what a cache holds, the least recently used first; nothing else that lies there."""
    found = []
    for folder, kind in ((root / name, kind) for name, kind in PLACES.items()):
        for path in folder.glob("*") if folder.is_dir() else ():
            if NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                found.append(_describe(path, kind))
    return sorted(found, key=lambda entry: (entry.last_used, entry.path))


def _describe(path: Path, kind: str) -> Entry:
    size, newest = 0, path.stat().st_mtime
    for inside in path.rglob("*"):
        try:
            status = inside.stat()
        except FileNotFoundError:  # another run is at work in it
            continue
        size += status.st_size if inside.is_file() else 0
        newest = max(newest, status.st_mtime)
    lock = path.with_name(f"{path.name}.lock")
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = {}
    last_used = lock.stat().st_mtime if lock.exists() else newest
    return Entry(path, kind, size, last_used, about if isinstance(about, dict) else {})


def remove_entry(entry: Entry) -> bool:
    """Remove an entry, and tell whether it could be: one that a living run uses stays."""
    try:
        file = _lock(entry.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        aside = entry.path.with_name(f"{entry.path.name}.{os.getpid()}{UNFINISHED}")
        if entry.path.exists():
            os.replace(entry.path, aside)  # at once: a kill leaves nothing that passes for whole
            remove(aside)
        Path(file.name).unlink(missing_ok=True)
    finally:
        file.close()
    return True


def remove_leftovers(root: Path) -> None:
    """Remove what processes that are gone were about to remove when they were killed."""
    for folder in (root / name for name in PLACES):
        for path in folder.glob(f"*{UNFINISHED}"):
            name, _, process = path.name.removesuffix(UNFINISHED).rpartition(".")
            if NAME.fullmatch(name) and process.isdecimal() and not psutil.pid_exists(int(process)):
                remove(path)


def remove_oldest(root: Path, needed: int, limit: float) -> int:
    """Remove the outputs that were not used for longest until ``needed`` bytes more stay within ``limit``.

    Students stay: they took hours. What living runs use stays, too, even where the limit is then passed.

    Returns:
        The bytes of outputs that are left.
    """
    entries = [entry for entry in find_entries(root) if entry.kind == OUTPUTS]
    total = sum(entry.bytes for entry in entries)
    for entry in entries:
        if total + needed <= limit:
            break
        if remove_entry(entry):
            total -= entry.bytes
    return total


def write_about(folder: Path, **facts: Any) -> None:
    """Write down what an entry belongs to, for whoever lists the cache."""
    content = json.dumps(facts | {"made": time.strftime("%Y-%m-%d %H:%M")}, indent=1)
    (folder / ABOUT).write_text(content + "\n", encoding="utf-8")
