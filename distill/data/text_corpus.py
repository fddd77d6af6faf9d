"""The text of a language model: one file, or a folder with a file for train and one for validation."""

import re
from pathlib import Path

import numpy as np

from distill.config.data_schema import DataConfig
from distill.data.splits import Examples, Splits
from distill.data.text_parts import TextParts, cut_end, open_part
from distill.tasks import TEXT
from distill.utils.errors import UserError

ENDINGS = (".txt", ".txt.gz", ".raw", ".raw.gz")
NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev")}
"""How the names of the files of a split begin."""
VALIDATION = "validation"


def load_text(data: DataConfig) -> Splits:
    """Find train, its held-out end and validation, each one long text; none is read yet.

    Raises:
        UserError: there is no such file, or it is empty, binary or of an unknown encoding.
    """
    if data.dir is None:
        raise UserError("data.dir: task text needs a text file, or a folder with train.txt and validation.txt")
    files = find_files(Path(data.dir).expanduser())
    train = open_part(files["train"])
    validation = open_part(files[VALIDATION]) if VALIDATION in files else None
    notes = [] if len(files) == 2 else [f"validation: the last {100 * data.validation_fraction:g} % of {data.dir}"]
    if validation is None:
        train, validation = cut_end(train, data.validation_fraction)
    train, held_out = cut_end(train, data.held_out_fraction)
    nothing = Examples(np.zeros(0, np.int64), [], np.zeros(0, np.int64))
    return Splits(nothing, nothing, {}, notes=tuple(notes), text=TextParts(train, held_out, validation))


def find_files(place: Path) -> dict[str, Path]:
    """Return the file of train, and that of validation where there is one.

    Raises:
        UserError: there is none, or several could be meant.
    """
    if place.is_file():
        return {"train": place}
    if not place.is_dir():
        raise UserError(f"data.dir: there is no file or folder {place}")
    inner = place / TEXT
    folder = inner if inner.is_dir() else place
    texts = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(ENDINGS))
    found = {}
    for split, beginnings in NAMES.items():
        pattern = re.compile(rf"({'|'.join(beginnings)})([._-].*|)$", re.IGNORECASE)
        fitting = [path for path in texts if pattern.match(path.name)]
        plain = [path for path in fitting if path.name.lower().split(".")[0] in beginnings]
        if len(plain or fitting) > 1:
            names = ", ".join(path.name for path in plain or fitting)
            raise UserError(f"data.dir: {folder} has {names}, and one of them must be {split}; leave one there")
        if fitting:
            found[split] = (plain or fitting)[0]
    missing = [split for split in NAMES if split not in found]
    if missing:
        there = ", ".join(path.name for path in texts) or f"no file that ends with {', '.join(ENDINGS)}"
        raise UserError(
            f"data.dir: {folder} has no {missing[0]}.txt, there is {there}; name the files train.txt and "
            "validation.txt, or give one file, of which the end becomes validation"
        )
    return found
