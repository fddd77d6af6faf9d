"""Tokens on disk, memory-mapped: as many examples as a disk holds, and in memory those that a batch reads.

A folder has one file for each array of `TokenizedExamples` and, written last, ``shape.json``, which describes them.
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.batching import TokenizedExamples
from distill.data.labels import hidden_like
from distill.utils.errors import UserError
from distill.utils.files import read_object, write_atomically

ARRAYS = ("token_ids", "token_type_ids", "offsets", "labels", "ids")
SETTINGS = ("pad_token_id", "pad_multiple", "padding_side", "token_types")
"""How a batch is filled up, and what it has."""
SHAPE = "shape.json"
SMALL_VOCABULARY = 2**16
"""Up to so many tokens, an id takes two bytes."""
BYTES_PER_ROW = 24
"""An offset, a label and an id."""


def bytes_on_disk(rows: float, tokens: float, vocabulary_size: int) -> int:
    """Return what the files of so many examples take."""
    return int(rows * BYTES_PER_ROW + tokens * (id_type(vocabulary_size).itemsize + 1))


def id_type(vocabulary_size: int) -> np.dtype:
    """Return the smallest type that holds the tokens of a vocabulary."""
    return np.dtype(np.uint16 if vocabulary_size <= SMALL_VOCABULARY else np.int32)


def write_tokens(
    folder: Path, own: TokenizedExamples, more: Iterable[TokenizedExamples], vocabulary_size: int
) -> None:
    """Write examples and, behind them, those of ``more`` with hidden labels, which are never in memory together.

    Args:
        folder: exists, and is empty.
        own: its settings of padding are kept.
    """
    rows = tokens = 0
    types = {"token_ids": id_type(vocabulary_size), "labels": own.labels.dtype}
    types |= {"token_type_ids": np.dtype(np.uint8), "offsets": np.dtype(np.int64), "ids": np.dtype(np.int64)}
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / name, "wb")) for name in ARRAYS}
        files["offsets"].write(np.zeros(1, np.int64).tobytes())
        for part in _chained(own, more):
            values = {name: getattr(part, name) for name in ARRAYS} | {"offsets": part.offsets[1:] + tokens}
            if part is not own:
                values["labels"] = hidden_like(own.labels, len(part))
            for name, array in values.items():
                files[name].write(np.ascontiguousarray(array, types[name]).tobytes())
            rows, tokens = rows + len(part), tokens + len(part.token_ids)
    lengths = {"token_ids": tokens, "token_type_ids": tokens, "offsets": rows + 1, "labels": rows, "ids": rows}
    shapes = {name: [lengths[name], *(own.labels.shape[1:] if name == "labels" else ())] for name in ARRAYS}
    settings = {name: getattr(own, name) for name in SETTINGS}
    described = {"shapes": shapes, "types": {name: types[name].str for name in ARRAYS}, "settings": settings}
    write_atomically(folder / SHAPE, json.dumps(described))


def _chained(own: TokenizedExamples, more: Iterable[TokenizedExamples]) -> Iterable[TokenizedExamples]:
    yield own
    yield from more


def open_tokens(folder: Path) -> TokenizedExamples:
    """Map into memory what :func:`write_tokens` left.

    Raises:
        UserError: it is torn.
    """
    way_out = f"remove {folder} to have the texts tokenised again"
    described = read_object(folder / SHAPE, way_out)
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        try:
            shape, kind = tuple(described["shapes"][name]), np.dtype(described["types"][name])
            mapped = np.memmap(folder / name, kind, "r")
            arrays[name] = mapped.view(np.ndarray).reshape(shape)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{folder / name} is torn; {way_out}") from error
    return TokenizedExamples(**arrays, **described["settings"])
