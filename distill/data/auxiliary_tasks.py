"""Texts of other tasks for the stages: their labels, which mean something else, are never read; the teacher judges."""

from collections.abc import Sequence

import numpy as np

from distill.data.labels import hidden_like
from distill.data.splits import Examples, Splits, load_unlabelled
from distill.tasks import TASKS, Task
from distill.utils.errors import UserError


def texts_of_other_tasks(
    task: Task, names: Sequence[str], source: str | None, own: Splits, most: int | None, seed: int
) -> Examples | None:
    """Return the train texts of the tasks ``names`` in the form of ``task``'s, or None where no task is named.

    A pair is two texts where ``task`` reads single ones. What stands in any part of ``own`` is left out: a student
    that was trained on the texts it is scored on would look better than it is.

    Args:
        source: as in :func:`distill.data.splits.load_splits`; the folder holds all tasks.
        most: texts of each task, drawn by ``seed``; None for all.

    Raises:
        UserError: a task of single texts is named beside a task of pairs, or its texts cannot be read.
    """
    if not names:
        return None
    known = {texts for part in (own.train, own.held_out, *own.validation.values()) for texts in part.texts}
    found: list[tuple[str, ...]] = []
    for name in names:
        texts = _in_form_of(task, TASKS[name], load_unlabelled(TASKS[name], source, ("train",))["train"])
        new = [each for each in dict.fromkeys(texts) if each not in known]
        chosen = np.random.default_rng(seed).permutation(len(new))[:most]
        found += [new[index] for index in np.sort(chosen)]
        known.update(found)
    if not found:
        raise UserError(f"augmentation.tasks: {', '.join(names)} hold no text that {task.name} lacks; leave them out")
    like = own.train.labels.astype(np.float32) if task.is_regression else own.train.labels
    return Examples(np.arange(len(found)), found, hidden_like(like, len(found)))


def _in_form_of(task: Task, other: Task, examples: Examples) -> list[tuple[str, ...]]:
    if len(other.text_columns) == len(task.text_columns):
        return examples.texts
    if len(task.text_columns) == 2:
        raise UserError(f"augmentation.tasks: {other.name} has single texts, {task.name} pairs; name tasks of pairs")
    return [(text,) for texts in examples.texts for text in texts]
