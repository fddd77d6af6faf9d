"""Folders with the files of a task, and a short way to load them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill.data.splits import Examples, load_splits
from distill.data.synthetic_glue import generate
from distill.tasks import TASKS, Task

MANY = {"sentence": [f"text {i}" for i in range(1000)], "label": [int(i % 10 == 0) for i in range(1000)]}


def write(path: Path, columns: dict[str, Any]) -> None:
    """Write a dict of columns in the format of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [separator.join(columns), *(separator.join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")


def load(
    folder: Path | str | None, task: Task = TASKS["sst2"], **changes: Any
) -> tuple[Examples, Examples, dict[str, Examples]]:
    """Return the train, held-out and validation examples of a folder, or of another ``source``."""
    settings = {"source": str(folder), "seed": 0, "max_train_examples": None, "held_out_fraction": 0.1} | changes
    splits = load_splits(task, **settings)
    return splits.train, splits.held_out, splits.validation


def folder_with(
    tmp_path: Path, validation: dict[str, Any] | bytes, extension: str = "jsonl", task: str = "sst2"
) -> Path:
    """A folder with good train data and the given validation columns (or raw bytes)."""
    good = {"sentence": ["a", "b"], "label": [0, 1]}
    if task == "stsb":
        good = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0.5, 5.0]}
    write(tmp_path / task / "train.jsonl", good)
    path = tmp_path / task / f"validation.{extension}"
    if isinstance(validation, bytes):
        path.write_bytes(validation)
    else:
        write(path, validation)
    return tmp_path


def few_sentences(folder: Path, train: int, validation: int) -> Path:
    """Write the first rows of the embedded SST-2, whose thousands take a run seconds to write and to predict."""
    splits = generate("sst2", 0)
    for name, count in (("train", train), ("validation", validation)):
        rows = splits[name][:count]
        write(folder / "sst2" / f"{name}.jsonl", {key: [row[key] for row in rows] for key in ("sentence", "label")})
    return folder
