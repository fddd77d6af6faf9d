"""Tables of texts that have any number of labels, in every form in which people keep them."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas
from helpers.tickets import CLASSES, PROBLEMS, filled

NAMES = tuple(sorted(CLASSES))
SHARES = dict(zip(NAMES, (0.35, 0.3, 0.25, 0.12, 0.4), strict=True))
"""How often a label is there; of twenty texts about four have none."""


def topics(rows: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Return texts, each a problem of every one of its labels, and these labels, sorted."""
    draw = random.Random(seed)
    texts, labels = [], []
    for _ in range(rows):
        own = [name for name in NAMES if draw.random() < SHARES[name]]
        sentences = [draw.choice(PROBLEMS[name]) for name in own] or ["thank you, everything is fine {when}"]
        draw.shuffle(sentences)
        texts.append(". ".join(filled(sentence, draw) for sentence in sentences))
        labels.append(own)
    return texts, labels


def _lines(path: Path, texts: Sequence[str], labels: Sequence[Sequence[str]]) -> None:
    rows = [{"text": text, "tags": list(own)} for text, own in zip(texts, labels, strict=True)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _joined(join: Callable[[Sequence[str]], str]) -> Callable[..., None]:
    def write(path: Path, texts: Sequence[str], labels: Sequence[Sequence[str]]) -> None:
        pandas.DataFrame({"text": texts, "tags": [join(own) for own in labels]}).to_csv(path, index=False)

    return write


def _frame(texts: Sequence[str], labels: Sequence[Sequence[str]]) -> pandas.DataFrame:
    columns = {name: [int(name in own) for own in labels] for name in NAMES}
    return pandas.DataFrame({"id": range(len(texts)), "text": texts, **columns})


FORMS: dict[str, tuple[str, Callable[..., None]]] = {
    "lines": ("jsonl", _lines),
    "indices": (
        "jsonl",
        lambda path, texts, labels: _lines(path, texts, [[NAMES.index(each) for each in own] for own in labels]),
    ),
    "parquet": (
        "parquet",
        lambda path, texts, labels: pandas.DataFrame({"text": texts, "tags": labels}).to_parquet(path),
    ),
    "bars": ("csv", _joined("|".join)),
    "commas": ("csv", _joined(", ".join)),
    "semicolons": ("csv", _joined(";".join)),
    "json in csv": ("csv", _joined(json.dumps)),
    "python in csv": ("csv", _joined(lambda own: str(list(own)))),
    "numpy in csv": ("csv", _joined(lambda own: f"[{' '.join(map(repr, own))}]")),
    "columns": ("csv", lambda path, texts, labels: _frame(texts, labels).to_csv(path, index=False)),
    "switches": (
        "parquet",
        lambda path, texts, labels: _frame(texts, labels).astype(dict.fromkeys(NAMES, bool)).to_parquet(path),
    ),
}
"""Name of a form to the ending of its file and what writes it."""


def write_topics(folder: Path, form: str, rows: int, seed: int = 0) -> Path:
    """Write a table and return its path."""
    extension, write = FORMS[form]
    path = folder / f"topics.{extension}"
    write(path, *topics(rows, seed))
    return path
