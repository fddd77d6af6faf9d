"""Miniature versions of the nine GLUE tasks, written at run time by a seeded grammar.

Columns, label order and split names are GLUE's (``nyu-mll/glue``), without its unlabelled test
splits. The label is drawn first and the text written for it, so that shares are exact. Most of what
decides is composition; word counts alone are left with little. They are not left with nothing where
a model from scratch needs a first hint to learn from: MRPC and WNLI prefer some words, and
quantifiers are not spread evenly over RTE's and MNLI's labels. A share of the labels
(``LABEL_NOISE``, in every split) is then drawn again at random, as annotators disagree, which keeps
the best possible score below 100; STS-B's grades have a spread instead. No text, and no pair in
either order, stands twice.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from distill.utils.errors import UserError, choices_hint

from .acceptability import write_cola
from .inference import write_mnli, write_mnli_mismatched, write_rte
from .paraphrase import write_mrpc, write_qqp
from .reading import write_qnli, write_wnli
from .sentiment import write_sst2
from .similarity import write_stsb

Row = dict[str, str | int | float]
Writer = Callable[[random.Random, int], tuple[str, ...]]
Draw = Callable[[random.Random, int], tuple[tuple[str, ...], float]]

LABEL_NOISE = 0.03
NUM_TRAIN = 12000
NUM_VALIDATION = 1000  # in each validation split
_MAX_DRAWS = 1000  # for a text that was not there before


@dataclass(frozen=True)
class _Recipe:
    columns: tuple[str, ...]
    shares: tuple[float, ...]  # of each label; for STS-B of the number of redrawn parts
    draw: Draw
    mismatched: Draw | None = None  # for a second validation split of another genre


def _labelled(writer: Writer, shares: tuple[float, ...]) -> Draw:
    """Let a writer also return its label, drawn again for a share of ``LABEL_NOISE``."""

    def draw(rng: random.Random, label: int) -> tuple[tuple[str, ...], int]:
        texts = writer(rng, label)
        noisy = rng.random() < LABEL_NOISE
        return texts, rng.choices(range(len(shares)), shares)[0] if noisy else label

    return draw


def _recipe(columns: str, shares: tuple[float, ...], writer: Writer) -> _Recipe:
    return _Recipe(tuple(columns.split()), shares, _labelled(writer, shares))


_THIRDS = (1 / 3, 1 / 3, 1 / 3)
_RECIPES = {
    "cola": _recipe("sentence", (0.3, 0.7), write_cola),
    "sst2": _recipe("sentence", (0.45, 0.55), write_sst2),
    "mrpc": _recipe("sentence1 sentence2", (0.32, 0.68), write_mrpc),
    "stsb": _Recipe(("sentence1", "sentence2"), (1 / 6,) * 6, write_stsb),
    "qqp": _recipe("question1 question2", (0.63, 0.37), write_qqp),
    "mnli": _Recipe(
        ("premise", "hypothesis"),
        _THIRDS,
        _labelled(write_mnli, _THIRDS),
        mismatched=_labelled(write_mnli_mismatched, _THIRDS),
    ),
    "qnli": _recipe("question sentence", (0.5, 0.5), write_qnli),
    "rte": _recipe("sentence1 sentence2", (0.5, 0.5), write_rte),
    "wnli": _recipe("sentence1 sentence2", (0.5, 0.5), write_wnli),
}
EMBEDDED_TASKS = tuple(_RECIPES)


def _labels(rng: random.Random, shares: tuple[float, ...], size: int) -> list[int]:
    """Labels in exactly the given shares (the rest goes to the last), in random order."""
    labels = [label for label, share in enumerate(shares[:-1]) for _ in range(round(share * size))]
    labels += [len(shares) - 1] * (size - len(labels))
    rng.shuffle(labels)
    return labels


def _write_split(rng: random.Random, recipe: _Recipe, draw: Draw, size: int, seen: set[tuple[str, ...]]) -> list[Row]:
    rows: list[Row] = []
    for index, wanted in enumerate(_labels(rng, recipe.shares, size)):
        for _ in range(_MAX_DRAWS):
            texts, label = draw(rng, wanted)
            if tuple(sorted(texts)) not in seen:
                break
        else:
            raise RuntimeError(f"the grammar has too few texts of label {wanted}")
        seen.add(tuple(sorted(texts)))
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
    # Validation is drawn first, so that what train leaves over does not shape it.
    plan = {"validation": recipe.draw}
    if recipe.mismatched is not None:
        plan = {"validation_matched": recipe.draw, "validation_mismatched": recipe.mismatched}
    seen: set[tuple[str, ...]] = set()

    def write(split: str, draw: Draw, size: int) -> list[Row]:
        return _write_split(random.Random(f"{task_name} {split} {seed}"), recipe, draw, size, seen)

    validation = {split: write(split, draw, NUM_VALIDATION) for split, draw in plan.items()}
    return {"train": write("train", recipe.draw, NUM_TRAIN), **validation}
