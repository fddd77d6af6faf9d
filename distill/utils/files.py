"""Files that are either whole or not there: write to a temporary name, sync, then rename."""

import os
import shutil
from pathlib import Path

UNFINISHED = ".incomplete"
"""Ends the name of everything that is still being written."""
REPLACED = ".replaced"
"""Ends the name of a directory that is about to be replaced."""


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        replace_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_file(temporary: Path, final: Path) -> None:
    """Move a finished file to its final name, replacing what stood there, so that a power cut leaves either whole."""
    _sync(temporary)
    os.replace(temporary, final)
    _sync(final.parent)


def replace_directory(temporary: Path | str, final: Path | str) -> None:
    """Move a finished directory to its final name, replacing what stood there.

    A directory cannot replace a full one in a single step, so the old one is moved aside first; a
    kill in between leaves the old one under ``<name>.replaced``, from which :func:`clean_up` brings it back.
    """
    temporary, final = Path(temporary), Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    for path in (*temporary.rglob("*"), temporary):
        _sync(path)
    aside = final.with_name(final.name + REPLACED)
    _recover(aside)
    if final.exists():
        os.replace(final, aside)
    os.replace(temporary, final)
    _sync(final.parent)
    _recover(aside)


def is_leftover(path: Path) -> bool:
    """Tell whether the name of ``path`` is one that only a kill leaves behind."""
    return path.name.endswith((UNFINISHED, REPLACED))


def clean_up(folder: Path) -> None:
    """Bring back what a kill left half replaced anywhere in ``folder``, and remove what it left half written."""
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(REPLACED):
            _recover(path)
        elif path.name.endswith(UNFINISHED):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _recover(aside: Path) -> None:
    final = aside.with_name(aside.name.removesuffix(REPLACED))
    if aside.exists() and final.exists():
        shutil.rmtree(aside)
    elif aside.exists():
        os.replace(aside, final)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
