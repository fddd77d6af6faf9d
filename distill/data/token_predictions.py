"""Predictions of a language model for those tokens alone whose predictions somebody reads.

With a vocabulary of 30,000 words the head of a small encoder costs as much as its layers, and BERT's masked words are
a seventh of a text. Shapes: B texts, N tokens, D hidden size, M places.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from distill.data.labels import HIDDEN

PLACES = "predicted_places"
"""Key of the places among a batch's inputs."""


def places_to_predict(labels: Tensor, *, reads_logits: bool) -> Tensor | None:
    """Return the places (B, M) of the tokens that are to be predicted, in order, M the most that a text has.

    A text with fewer has others behind its own, whose labels are hidden. None where no place can be left out.

    Args:
        labels: (B, N), `HIDDEN` where no token is to be predicted.
        reads_logits: without it there are no places: M is 0.
    """
    if not reads_logits:
        return labels.new_zeros((len(labels), 0))
    wanted = labels != HIDDEN
    most = int(wanted.sum(1).max())
    if most == labels.shape[1]:
        return None
    return torch.argsort((~wanted).byte(), dim=1, stable=True)[:, :most]


def labels_at(labels: Tensor, places: Tensor | None) -> Tensor:
    """Return the labels (B, M) of the tokens at ``places``, those of all tokens where that is None."""
    return labels if places is None else labels.gather(1, places)


@contextmanager
def predicting(model: Any, places: Tensor | None) -> Iterator[None]:
    """Let the head of a language model compute (B, M, V) logits of the tokens at ``places`` while the block runs.

    Args:
        model: one with an encoder and modules beside it, its head, that read (B, N, D) hidden states.
        places: (B, M), M < N; None leaves the model as it is.
    """
    if places is None:
        yield
        return

    def keep_places(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        hidden_states, *others = inputs
        if hidden_states.shape[1] == places.shape[1]:
            return None  # what the first module of the head has been given, and handed on
        return hidden_states.gather(1, places[..., None].expand(-1, -1, hidden_states.shape[-1])), *others

    head = [module for module in model.children() if module is not model.base_model]
    handles = [module.register_forward_pre_hook(keep_places) for module in head]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
