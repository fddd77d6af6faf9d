"""The files of a task in a folder, or the one file of somebody's own task."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from distill.data.official_glue import FOLDERS
from distill.data.readers import ARROW, EXTENSIONS, MORE_EXTENSIONS, SAVED_DATASET
from distill.data.source_errors import reason
from distill.data.text_files import extension
from distill.tasks import CUSTOM
from distill.utils.errors import UserError

READABLE = (*EXTENSIONS, *MORE_EXTENSIONS)
OTHER_NAMES = {
    "validation": ("dev", "valid", "val"),
    "validation_matched": ("dev_matched",),
    "validation_mismatched": ("dev_mismatched",),
}
"""What a split is called elsewhere, the likeliest name first."""
LAST_RESORT = "test"
"""Is the validation of task custom where its folder holds no other and it has labels."""
SHARD = re.compile(r"(.+?)-(\d+)-of-(\d+)\.parquet")
"""How the Hub names the parts of a split."""
CONVERTED = {
    "an Excel file": (("xlsx", "xls", "xlsm", "ods"), "save its sheet as csv (UTF-8)"),
    "an archive": (("zip", "tar", "tgz", "7z", "rar", "bz2", "xz", "zst"), "unpack it"),
    "a pickle": (("pkl", "pickle"), "write it again with pandas' to_parquet"),
    "a page or a document": (("xml", "html", "docx", "pdf"), "save its table as csv (UTF-8)"),
    "a database": (("sqlite", "db", "h5", "hdf5", "orc", "avro"), "write its table with pandas' to_parquet"),
}
"""Formats that are not read, the ends of their names, and the way out."""
NOT_READ = {end for ends, _ in CONVERTED.values() for end in ends}


@dataclass(frozen=True)
class SplitFiles:
    """Where one split is read from."""

    paths: tuple[Path, ...]
    """Files, or one folder that ``save_to_disk`` wrote; several are the parts of one table."""
    found: str = ""
    """The name of the split there, where it is another one."""

    @property
    def where(self) -> str:
        """Name them in a message."""
        first = self.paths[0]
        name = first.name if len(self.paths) == 1 else SHARD.sub(r"\1-*-of-\3.parquet", first.name)
        return str(first.with_name(name))


def split_files(data_dir: str | Path, task_name: str, splits: Sequence[str]) -> dict[str, SplitFiles]:
    """Return the files of each split; only task custom may lack one other than train, and have ``data_dir`` for train.

    Raises:
        UserError: there is no such folder or file, or a file is missing or in a format that is not read.
    """
    try:
        place = Path(data_dir).expanduser()
        is_folder, is_file = place.is_dir(), place.is_file()
    except (OSError, RuntimeError) as error:
        raise UserError(f"data.dir: {data_dir} cannot be opened ({reason(error)}); give another folder") from error
    if is_file and task_name != CUSTOM:
        raise UserError(f"data.dir: {place} is a file; task {task_name} reads a folder, task {CUSTOM} any file")
    if is_file and not is_readable(place):
        raise UserError(f"data.dir: {place} is {kind_of(place)}")
    if is_file:
        return {"train": SplitFiles((place,))}
    if not is_folder:
        kinds = "file or folder" if task_name == CUSTOM or is_readable(place) else "folder"
        raise UserError(f"data.dir: there is no {kinds} {place}")
    if task_name == CUSTOM and (place / SAVED_DATASET).is_file():
        return {"train": SplitFiles((place,))}
    folder = _task_folder(place, task_name)
    found = {split: _find(folder, split) for split in splits}
    if task_name == CUSTOM:
        found["train"] = found["train"] or _single_file(folder)
        if "validation" in found:
            found["validation"] = found["validation"] or _last_resort(folder)
        found = {split: files for split, files in found.items() if files is not None or split == "train"}
    return {split: files or _refuse_missing(folder, split) for split, files in found.items()}


def has_split(data_dir: str | Path, task_name: str, split: str) -> bool:
    """Tell whether the folder of a published task holds a split.

    Raises:
        UserError: there is no such folder, or the split is there in a format that is not read, twice, or in part.
    """
    place = Path(data_dir).expanduser()
    if not place.is_dir():
        raise UserError(f"data.dir: there is no folder {place}")
    folder = _task_folder(place, task_name)
    if _find(folder, split) is not None:
        return True
    if any(path.stem.lower() == split for path in folder.iterdir() if path.is_file()):
        _refuse_missing(folder, split)
    return False


def is_readable(path: Path) -> bool:
    """Tell whether a file's name ends as that of a format that is read, compressed or not."""
    return path.name.lower().endswith(tuple(f".{kind}" for kind in READABLE))


def kind_of(path: Path, formats: Sequence[str] = EXTENSIONS) -> str:
    """Say what a file is that is none of ``formats``, and how to convert it."""
    end = path.suffix.lower().removeprefix(".")
    for kind, (ends, way_out) in CONVERTED.items():
        if end in ends:
            return f"{kind}, none of {', '.join(formats)}; {way_out}"
    return f"none of {', '.join(formats)}; save it as one of these"


def _task_folder(data_dir: Path, task_name: str) -> Path:
    """Return ``<data.dir>/<task>``, or the folder of that name in official GLUE.

    Task custom may also have its files directly in ``data_dir``, and GLUE's own folder may be given itself.
    """
    official = FOLDERS.get(task_name, task_name)
    for folder in (data_dir / task_name, data_dir / official):
        if folder.is_dir():
            return folder
    if task_name == CUSTOM or (task_name in FOLDERS and data_dir.name == official):
        return data_dir
    raise UserError(
        f"data.dir: there is no folder {data_dir / task_name}; "
        f"data.dir must hold {task_name}/train.<{'|'.join(EXTENSIONS)}>"
    )


def _find(folder: Path, split: str) -> SplitFiles | None:
    """Return the files of a split under its own name or another; the plainest form there is."""
    for name in (split, *OTHER_NAMES.get(split, ())):
        found = _plain_file(folder, name)
        paths = (found,) if found else _other_form(folder, name)
        if paths:
            return SplitFiles(paths, "" if name == split else paths[0].name)
    return None


def _last_resort(folder: Path) -> SplitFiles | None:
    files = _find(folder, LAST_RESORT)
    return None if files is None else replace(files, found=files.paths[0].name)


def _plain_file(folder: Path, split: str) -> Path | None:
    """Return ``<split>.<extension>`` in the formats that are named everywhere."""
    paths = [folder / f"{split}.{known}" for known in EXTENSIONS]
    present = [path for path in paths if path.is_symlink() or path.exists()]
    for path in present:
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a broken link" if path.is_symlink() else "no regular file"
            raise UserError(f"data.dir: {path} is {kind}; put the data file in its place")
    return _only(present)


def _other_form(folder: Path, split: str) -> tuple[Path, ...]:
    """Return a split in another spelling or format, in shards, or as a saved data set."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    alike = [path for path in files if is_readable(path) and path.name.lower().partition(".")[0] == split]
    if found := _only(alike):
        return (found,)
    if (folder / split / SAVED_DATASET).is_file():
        return (folder / split,)
    for place in (folder, folder / "data"):
        if place.is_dir() and (shards := _shards(place, split)):
            return shards
    return ()


def _shards(folder: Path, split: str) -> tuple[Path, ...]:
    """Return the parts of a split in the order of their numbers, if there are any; UserError if one is missing."""
    named = [(path, SHARD.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    parts = {int(name[2]): (path, int(name[3])) for path, name in named if name and name[1] == split}
    counts = {count for _, count in parts.values()}
    missing = sorted(set(range(max(counts, default=0))) - set(parts))
    if missing or len(counts) > 1:
        number = f"part {missing[0]} of {max(counts)}" if missing else "which parts belong together"
        raise UserError(f"data.dir: {folder} lacks {number} of {split}; fetch the files again")
    return tuple(parts[number][0] for number in sorted(parts))


def _only(present: Sequence[Path]) -> Path | None:
    if len(present) > 1:
        raise UserError(f"data.dir: {' and '.join(map(str, present))} hold the same split; keep one")
    return present[0] if present else None


def _tables_in(folder: Path) -> list[Path]:
    """Return the files whose names say that they are tables, which those of txt do not."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and is_readable(path))
    return [path for path in files if ".txt" not in path.name.lower()]


def _single_file(folder: Path) -> SplitFiles | None:
    """Return the only table in a folder, whatever its name; beside another one, Arrow's format holds a copy."""
    tables = _tables_in(folder)
    tables = [path for path in tables if extension(path) not in ARROW] or tables
    return SplitFiles((tables[0],), tables[0].name) if len(tables) == 1 else None


def _refuse_missing(folder: Path, split: str) -> NoReturn:
    """Refuse a folder without a split, and name the files that might be meant."""
    names = (split, *OTHER_NAMES.get(split, ()))
    converted = [path for path in sorted(folder.iterdir()) if path.is_file() and path.stem.lower() in names]
    if not converted and split == "train":
        converted = [path for path in sorted(folder.iterdir()) if path.suffix.lower().removeprefix(".") in NOT_READ]
    hint = f"; {converted[0].name} is {kind_of(converted[0])}" if converted else ""
    tables = ", ".join(path.name for path in _tables_in(folder)[:5])
    if tables and not hint:
        hint = f"; it holds {tables}: rename the right one"
    raise UserError(f"data.dir: no {split}.<{'|'.join(EXTENSIONS)}> in {folder}{hint}")
