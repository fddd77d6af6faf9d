"""Files that are either whole or not there: write to a temporary name, sync, then rename; read what is whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distill.utils.errors import UserError

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


def copy_directory(source: Path, final: Path) -> None:
    """Copy a directory so that the copy is whole or not there, replacing what stood there."""
    temporary = final.with_name(final.name + UNFINISHED)
    remove(temporary)
    with removed_on_error(temporary):
        shutil.copytree(source, temporary)
        replace_directory(temporary, final)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is torn, or nested deeper than anything that was written here.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested without end") from error


def read_object(path: Path, way_out: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        UserError: it is torn or holds something else; the message ends with ``way_out``.
    """
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is torn; {way_out}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is torn: it holds a {type(value).__name__}, not an object; {way_out}")
    return value


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 sum of every file in ``folder``, by its path there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = file_checksum(path)
    return found


def find_damage(folder: Path, expected: Mapping[str, str | None], pattern: str = "*") -> str | None:
    """Say which file of a folder is missing or no longer what it was, None where all are; files beside them are fine.

    Args:
        folder: as :func:`checksums` saw it.
        expected: SHA-256 sums by path; None where a file only has to be there.
        pattern: of the names of the files that are looked at.
    """
    for name, digest in expected.items():
        path = folder / name
        if not path.match(pattern):
            continue
        if not path.is_file():
            return f"{path} is missing"
        if digest is not None and file_checksum(path) != digest:
            return f"{path} was changed"
    return None


def file_checksum(path: Path) -> str:
    """Return the SHA-256 sum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Remove what an error in the block leaves unfinished at ``path``, at once: a disk that is full needs the room."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            remove(path)
        raise


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
