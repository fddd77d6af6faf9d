"""Whatever is wrong with a source, told in one line that names it and the way out."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from distill.utils.errors import UserError, first_line

MAX_SHOWN = 200
"""Characters of a list of columns that a message shows."""
MARKS = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a zip or Excel file",
    b"PAR1": "parquet",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"ARROW1": "feather",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"SQLite": "an SQLite database",
    b"%PDF": "a PDF",
}
"""How files begin that do not hold what their names say."""
MARKED = {".gz": "gzip", ".parquet": "parquet", ".feather": "feather", ".arrow": "feather"}
"""Ends of names of the kinds among them that are read."""


@contextmanager
def told_in_one_line(where: object, path: Path | None = None) -> Iterator[None]:
    """Turn what a reader raises into a UserError.

    Args:
        where: the name of the source in the message.
        path: the file, if it is one, whose first bytes may tell what it is instead.
    """
    looks = "" if path is None else looks_like(path)
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text{looks}; save it as UTF-8 ({first_line(error)})") from error
    except MemoryError as error:  # before ArrowException: Arrow's own is both
        raise no_memory(where) from error
    except (pa.ArrowException, OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        if "out of memory" in str(error):  # how the parser of pandas says it
            raise no_memory(where) from error
        raise UserError(f"cannot read {where}{looks}: {reason(error)}; write or fetch it again") from error


def no_memory(where: object) -> UserError:
    """Return the mistake of a source that does not fit into memory."""
    return UserError(f"{where} does not fit into memory; give a file of fewer rows, or use a machine with more")


def reason(error: BaseException) -> str:
    """Return what the system says is wrong, without the path that it repeats."""
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


def looks_like(path: Path) -> str:
    """Name the kind of a file that does not hold what its name says, in brackets, or return nothing."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError:
        return ""
    found = [kind for mark, kind in MARKS.items() if start.startswith(mark)]
    right = MARKED.get(path.suffix.lower())
    return f" (it looks like {found[0]})" if found and found[0] != right else ""


def require_columns(columns: Sequence[str], present: Sequence[str], where: object) -> None:
    """Refuse a source that lacks one of ``columns`` or has it twice."""
    for column in columns:
        if column not in present:
            raise UserError(f"{where} has no column {column!r}; its columns are {in_words(present)}")
        if list(present).count(column) > 1:
            raise UserError(f"{where} has the column {column!r} more than once; rename or remove one")


def match_columns(
    columns: Sequence[str], present: Sequence[str], where: object, other_names: Mapping[str, str] | None = None
) -> list[str]:
    """Return, for each of ``columns``, its name in a source, where case and outer spaces may differ.

    Args:
        other_names: what an official set calls a column.

    Raises:
        UserError: a column is missing, stands there twice, or could be one of several.
    """
    found = [name_of(column, present, where, other_names) for column in columns]
    require_columns(found, present, where)
    return found


def name_of(column: str, present: Sequence[str], where: object, other_names: Mapping[str, str] | None = None) -> str:
    """Return the name under which a column stands in a source, or would stand where it is missing.

    Raises:
        UserError: it could be one of several.
    """
    name = (other_names or {}).get(column, column)
    name = column if name not in present else name
    alike = [other for other in present if plain(other) == plain(name)]
    if name not in present and len(alike) > 1:
        raise UserError(f"{where} has several columns like {column!r}: {in_words(alike)}; name one of them")
    return alike[0] if name not in present and alike else name


def plain(column: str) -> str:
    """Return the name of a column without what people do not see or mean: outer spaces, marks, case."""
    return str(column).strip("\ufeff \t\r\n\u00a0").casefold()


def in_words(columns: Sequence[str]) -> str:
    """List the columns of a file in a message, as many as fit."""
    names = " ".join(", ".join(map(str, columns)).split())
    return names if len(names) < MAX_SHOWN else f"{names[:MAX_SHOWN]}..."
