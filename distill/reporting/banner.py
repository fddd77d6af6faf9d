"""What a run is about to learn from, for a reader before it starts: rows, labels and tokens of every split."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from distill.data.batching import TokenizedExamples
from distill.data.label_stratification import count_labels
from distill.data.splits import HIDDEN
from distill.data.token_inspection import inspect_tokens, unknown_tokens
from distill.reporting.formatting import percent
from distill.reporting.tables import Table, text_table
from distill.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_CLASSES = 12
"""Classes with a row of their own; of more, the most frequent ones in the first split."""
MAX_NAME = 40
"""Characters of a class name that are shown."""


def data_banner(
    task: Task,
    splits: Mapping[str, TokenizedExamples],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    found: str | None = None,
    rows: Mapping[str, int] | None = None,
    whose: str = "teacher",
) -> list[str]:
    """Return the lines about the data: rows and tokens per split, then classes or scores per split, then warnings.

    Args:
        splits: by the names that are shown; one without known labels has no part in the second table.
        max_length: what texts were cut at.
        found: lines about columns that nobody named and about the files.
        rows: of splits of which ``splits`` has a sample, the number of all rows.
        whose: the tokenizer is, teacher or student.
    """
    labelled = {name: part.labels for name, part in splits.items() if _is_labelled(part.labels)}
    tables = [
        _token_cells(splits, tokenizer, max_length, rows or {}),
        (_score_cells if task.is_regression else _class_cells)(task, labelled),
    ]
    lines = [] if found is None else [found, ""]
    lines += "\n\n".join(text_table(cells) for cells in tables).split("\n")
    warnings = [f"warning: {finding.line}" for finding in inspect_tokens(splits, tokenizer, max_length, whose)]
    return [*lines, *(["", *warnings] if warnings else []), ""]


def _is_labelled(labels: np.ndarray) -> bool:
    return not np.all(np.isnan(labels) if labels.dtype.kind == "f" else labels == HIDDEN)


def _token_cells(
    splits: Mapping[str, TokenizedExamples],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    all_rows: Mapping[str, int],
) -> Table:
    headers = ("split", "rows", "tokens, median", "95th percentile", f"cut at {max_length}", "unknown tokens")
    rows = []
    for name, part in splits.items():
        median, high = np.percentile(part.lengths, (50, 95))
        unknown, count = unknown_tokens(part, tokenizer)
        cut = percent(part.num_cut / len(part))
        count_rows = f"{all_rows.get(name, len(part)):,}"
        rows.append((name, count_rows, f"{median:.0f}", f"{high:.0f}", cut, percent(unknown / max(1, count))))
    return Table("data", headers, tuple(rows))


def _class_cells(task: Task, labels: Mapping[str, np.ndarray]) -> Table:
    """Return share and rows of each class or label in each split, in label order; of many, the most frequent first."""
    counts = np.stack([count_labels(task, given) for given in labels.values()])
    shares = counts / np.array([[len(given)] for given in labels.values()])
    order = np.arange(task.num_labels)
    if task.num_labels > MAX_CLASSES:
        order = np.argsort(-shares[0], kind="stable")[: MAX_CLASSES - 1]
    rows = [(_shown(task.label_names[index]), *map(_share, shares[:, index], counts[:, index])) for index in order]
    others = np.setdiff1d(np.arange(task.num_labels), order)
    if task.multi_label:
        without = np.array([(given == 0).all(1).sum() for given in labels.values()])
        rows += [(f"{len(others)} others", *[""] * len(labels))] if len(others) else []
        rows.append(("no label", *map(_share, without / [len(given) for given in labels.values()], without)))
        return Table("labels", ("label", *labels), tuple(rows))
    if len(others):
        of_others = shares[:, others].sum(1), counts[:, others].sum(1)
        rows.append((f"{len(others)} others", *map(_share, *of_others)))
    return Table("classes", ("class", *labels), tuple(rows))


def _share(share: float, count: int) -> str:
    return f"{percent(share)} ({count:,})"


def _shown(name: str) -> str:
    """Return a class name in one short line without control characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 3]}..."


def _score_cells(task: Task, labels: Mapping[str, np.ndarray]) -> Table:
    headers = ("split", "mean", "deviation", "lowest", "highest")
    rows = []
    for name, given in labels.items():
        figures = (given.mean(dtype=np.float64), given.std(dtype=np.float64), given.min(), given.max())
        rows.append((name, *(f"{figure:.4g}" for figure in figures)))
    return Table(f"scores ({task.label_column})", headers, tuple(rows))
