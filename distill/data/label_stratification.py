"""Labels of whole splits: counted, checked where a row may have several, and laid out to be split evenly.

Shapes: n rows, C labels.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from distill.data.rows import Rows
from distill.tasks import Task
from distill.utils.errors import UserError


def count_labels(task: Task, labels: np.ndarray) -> np.ndarray:
    """Return how many rows have each class, or each label of a multi-label task, int64 (C,).

    Args:
        labels: (n,) class indices, or (n, C) of 0 and 1.
    """
    if task.multi_label:
        return labels.astype(bool).sum(0)
    return np.bincount(labels, minlength=task.num_labels)


def label_strata(labels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers that put rows with any number of labels in order, and the rarest label of each, int64 (n,).

    In that order equal sets of labels stand together, behind sets that share their rarest labels, so that a systematic
    sample has every label about as often as all rows have. (Iterative stratification, Sechidis et al. 2011, takes the
    rarest label first too.) A row without labels has the number C for its rarest.

    Args:
        labels: (n, C) of 0 and 1.
        rows: positions that are to be split, by which labels are rare.
    """
    by_rarity = np.argsort(labels[rows].sum(0), kind="stable")
    has = labels[:, by_rarity] == 1
    ranks = np.unique(has, axis=0, return_inverse=True)[1].reshape(-1)
    return ranks, np.where(has.any(1), by_rarity[has.argmax(1)], labels.shape[1]).astype(np.int64)


def notes_on_label_sets(task: Task, sources: Mapping[str, Rows]) -> Iterator[str]:
    """Say how many rows of each source have no label of a multi-label task, which is no mistake."""
    for name, rows in sources.items() if task.multi_label else ():
        without = int((rows.labels[rows.complete] == 0).all(1).sum())
        if without:
            share = f"{without:,} of {len(rows.complete):,} rows ({100 * without / len(rows.complete):.1f} %)"
            yield f"{name}: {share} have no label, and say that there is none"


def check_label_sets(task: Task, labels: Mapping[str, np.ndarray]) -> None:
    """Refuse splits of a multi-label task from which nothing can be learned, chosen or told.

    Args:
        labels: of every split by its name, (n, C).

    Raises:
        UserError: in a split no row has a label, or all rows of train have the same ones.
    """
    for name, given in labels.items():
        if not (given == 1).any():
            way_out = (
                "so that no threshold can be chosen on them; raise data.held_out_fraction, or give more rows with some"
                if name not in ("train", *task.validation_splits)
                else "so that there is nothing to learn or to measure; give rows with labels"
            )
            raise UserError(f"{name}: none of the rows ({len(given):,}) has a label, {way_out}")
        if name == "train" and len(given) > 1 and (given == given[0]).all():
            names = ", ".join(np.array(task.label_names)[given[0] == 1])
            raise UserError(f"{name}: every row has the same labels ({names}); give examples of others")
