"""The files of a task in a folder, or the one file of somebody's own task."""

from collections.abc import Sequence
from pathlib import Path

from distill.data.readers import EXTENSIONS, extension, reason
from distill.tasks import CUSTOM
from distill.utils.errors import UserError


def split_files(data_dir: str | Path, task_name: str, splits: Sequence[str]) -> dict[str, Path]:
    """Return the file of each split; only task custom may lack one other than train, and have ``data_dir`` for train.

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
    if is_file and extension(place) not in EXTENSIONS:
        raise UserError(f"data.dir: {place} is none of {', '.join(EXTENSIONS)}; save it as one of these")
    if is_file:
        return {"train": place}
    if not is_folder:
        raise UserError(f"data.dir: there is no folder {place}")
    folder = _task_folder(place, task_name)
    needed = [split for split in splits if split == "train" or task_name != CUSTOM or _present(folder, split)]
    return {split: _split_file(folder, split) for split in needed}


def _task_folder(data_dir: Path, task_name: str) -> Path:
    """Return ``<data.dir>/<task>``; task custom may also have its files directly in the folder."""
    folder = data_dir / task_name
    if task_name == CUSTOM and not folder.is_dir():
        folder = data_dir
    if not folder.is_dir():
        raise UserError(
            f"data.dir: there is no folder {folder}; data.dir must hold {task_name}/train.<{'|'.join(EXTENSIONS)}>"
        )
    return folder


def _split_file(folder: Path, split: str) -> Path:
    """Return the one file of ``split`` in ``folder``, whatever its format."""
    found = _present(folder, split)
    for path in found:
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a broken link" if path.is_symlink() else "no regular file"
            raise UserError(f"data.dir: {path} is {kind}; put the data file in its place")
    if not found:
        raise UserError(f"data.dir: no {split}.<{'|'.join(EXTENSIONS)}> in {folder}")
    if len(found) > 1:
        raise UserError(f"data.dir: {' and '.join(map(str, found))} hold the same split; keep one")
    return found[0]


def _present(folder: Path, split: str) -> list[Path]:
    paths = [folder / f"{split}.{known}" for known in EXTENSIONS]
    return [path for path in paths if path.is_symlink() or path.exists()]
