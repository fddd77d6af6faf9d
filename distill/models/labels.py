"""What a classifier's outputs mean: matched with the labels of a task by name, and put into their order."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from distill.tasks import MULTI_LABEL, Task
from distill.utils.errors import UserError
from students.families import find_family, last_linear

NAMELESS = re.compile(r"(?:label|class)?(\d+)")
SEPARATORS = re.compile(r"[\s_-]+")
SHORTEST = 3
"""Letters of the shortest name that stands for a longer one."""
MAX_NAMES = 8
"""Names that a message lists."""


def check_problem_type(config: PreTrainedConfig, task: Task, who: str) -> None:
    """Refuse a model that was trained for another kind of task.

    Raises:
        UserError: it decides every label by itself, or predicts scores for classes, or classes for a score.
    """
    # Outputs that nobody calls independent are those of a softmax: their sigmoids are no probabilities.
    known = (task.problem_type,) if task.multi_label else (None, task.problem_type)
    if config.problem_type not in known:
        several = config.problem_type == MULTI_LABEL and task.hub is None and not task.is_regression
        way_out = ", or read the data as such with --data.multi_label true" if several else ""
        raise UserError(
            f"{who} was trained for {config.problem_type or 'one class a text'} and task {task.name} is "
            f"{task.problem_type}; give a model of that kind (problem_type in its config.json says which it is)"
            f"{way_out}"
        )


def settle_labels(model: PreTrainedModel, task: Task, who: str) -> str | None:
    """Put the outputs of a classifier into the order of the task's labels, and call them by the task's names.

    Names are matched without regard to case, spaces, hyphens and underscores, and where one begins with the other, as
    negative with neg. Outputs that have none (LABEL_0) are taken in the order in which they stand, and so is every
    other one where the user gave ``data.label_names``. Where the labels of the data are bare indices, the names of the
    model say more and stay.

    Args:
        model: with as many outputs as the task has; its classifier and its configuration are changed in place.
        task: names the labels.
        who: the model, as messages call it.

    Returns:
        A line that tells what was put in order, None where nothing was.

    Raises:
        UserError: the model's labels are others than the task's, or it was trained for another kind of task.
    """
    config = model.config
    check_problem_type(config, task, who)
    if task.is_regression:
        config.problem_type = "regression"
    names = output_names(config)
    order = None if task.is_regression else matching_order(names, task.label_names)
    note = None
    if order is not None:
        if order != sorted(order):
            permute_outputs(model, order, who)
            note = (
                f"{who}: its labels stand in another order than the task's and were matched by name: "
                f"{_listed([f'{task.label_names[new]} = output {old}' for new, old in enumerate(order)])}"
            )
    elif not (task.is_regression or task.order_is_given or _are_nameless(names)):
        if _are_nameless(task.label_names):
            return None
        raise UserError(_other_labels(names, task, who))
    config.id2label = dict(enumerate(task.output_names))
    config.label2id = {name: index for index, name in config.id2label.items()}
    return note


def output_names(config: PreTrainedConfig) -> list[str]:
    """Return the names of a model's outputs, in order."""
    named = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    return [named[index] for index in sorted(named)]


def matching_order(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return which output each wanted label has; None where the names are not the same set.

    They are compared as they are written first: what differs by case alone may be two labels.
    """
    for form in (str, _folded):
        found, sought = [form(name) for name in names], [form(name) for name in wanted]
        if sorted(found) == sorted(sought) and len(set(found)) == len(found):
            return [found.index(name) for name in sought]
    return _abbreviated_order([_folded(name) for name in names], [_folded(name) for name in wanted])


def _abbreviated_order(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Match names of which one is the beginning of the other, as neg and negative; None where that is ambiguous."""
    order = []
    for name in wanted:
        alike = [
            index
            for index, other in enumerate(names)
            if min(len(name), len(other)) >= SHORTEST and (name.startswith(other) or other.startswith(name))
        ]
        if len(alike) != 1:
            return None
        order += alike
    return order if len(set(order)) == len(names) == len(wanted) else None


@torch.no_grad()
def permute_outputs(model: PreTrainedModel, order: Sequence[int], who: str) -> None:
    """Make output i of a classifier what output ``order[i]`` was.

    Raises:
        UserError: it has no linear layer of that many outputs, which every classifier of transformers ends with.
    """
    head = output_layer(model, len(order))
    if head is None:
        raise UserError(
            f"{who} has its labels in another order than the task's, and no classifier that can be put in order"
        )
    for parameter in head.parameters():
        parameter.copy_(parameter[list(order)])


def output_layer(model: PreTrainedModel, num_outputs: int) -> Any:
    """Return the linear layer that a classifier ends with; None for one that has none of that many outputs."""
    if find_family(model.config) is not None:
        return last_linear(model)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == num_outputs]
    return layers[-1] if layers else None


def _folded(name: str) -> str:
    return SEPARATORS.sub("", name).casefold()


def _are_nameless(names: Sequence[str]) -> bool:
    """Tell whether names are the numbers of the outputs, in their order."""
    matches = [NAMELESS.fullmatch(_folded(name)) for name in names]
    return all(match is not None and int(match[1]) == index for index, match in enumerate(matches))


def _other_labels(names: Sequence[str], task: Task, who: str) -> str:
    theirs, ours = _listed([repr(name) for name in names]), _listed([repr(name) for name in task.label_names])
    way_out = (
        "give the data's labels in the order of its outputs with --data.label_names"
        if task.hub is None
        else "write the task's names into id2label of its config.json, in the order of its outputs"
    )
    return f"{who} has the labels {theirs}, not those of task {task.name}, {ours}; {way_out}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
