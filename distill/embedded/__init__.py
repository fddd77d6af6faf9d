"""Miniature versions of the nine GLUE tasks, written at run time by a seeded grammar.

Columns, label order and split names are GLUE's (``nyu-mll/glue``), without its unlabelled test
splits. The label is drawn first and the text written for it, so that shares are exact; words are
drawn alike for all labels, so that a bag of words is left with little. A share of the labels
(``LABEL_NOISE``, in every split) is then drawn again at random, as annotators disagree, which keeps
the best possible score below 100. No text, and no pair in either order, stands in two splits.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from distill.errors import UserError, choices_hint

from .sentiment import write_sst2

Row = dict[str, str | int | float]
Writer = Callable[[random.Random, int], tuple[str, ...]]

LABEL_NOISE = 0.03


@dataclass(frozen=True)
class _Recipe:
    columns: tuple[str, ...]
    label_shares: tuple[float, ...]  # () for a real-valued grade
    writer: Writer
    num_train: int = 6000
    num_validation: int = 1000


_RECIPES = {
    "sst2": _Recipe(("sentence",), (0.45, 0.55), write_sst2, num_train=12000),
}
EMBEDDED_TASKS = tuple(_RECIPES)


def _labels(rng: random.Random, shares: tuple[float, ...], size: int) -> list[int]:
    """Labels in exactly the given shares (the rest goes to the last), in random order."""
    labels = [label for label, share in enumerate(shares[:-1]) for _ in range(round(share * size))]
    labels += [len(shares) - 1] * (size - len(labels))
    rng.shuffle(labels)
    return labels


def _write_split(
    rng: random.Random, recipe: _Recipe, writer: Writer, size: int, seen: set[tuple[str, ...]]
) -> list[Row]:
    rows: list[Row] = []
    for index, label in enumerate(_labels(rng, recipe.label_shares, size)):
        texts = writer(rng, label)
        while tuple(sorted(texts)) in seen:
            texts = writer(rng, label)
        seen.add(tuple(sorted(texts)))
        if rng.random() < LABEL_NOISE:
            label = rng.choices(range(len(recipe.label_shares)), recipe.label_shares)[0]
        rows.append({**dict(zip(recipe.columns, texts, strict=True)), "label": label, "idx": index})
    return rows


def generate(task_name: str, seed: int) -> dict[str, list[Row]]:
    """Write all splits of a task: split name -> rows with GLUE's columns, ``label`` and ``idx``.

    The same name and seed give the same rows on every machine. Raises UserError for a name that is
    not one of ``EMBEDDED_TASKS``.
    """
    if task_name not in _RECIPES:
        raise UserError(f"no embedded task {task_name!r}; {choices_hint(task_name, EMBEDDED_TASKS)}")
    recipe = _RECIPES[task_name]
    seen: set[tuple[str, ...]] = set()
    splits = {}
    for split, size in (("validation", recipe.num_validation), ("train", recipe.num_train)):
        rng = random.Random(f"{task_name} {split} {seed}")
        splits[split] = _write_split(rng, recipe, recipe.writer, size, seen)
    return splits
