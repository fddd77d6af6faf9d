"""Weights that were read from a file, where torch would have put them."""

from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def in_own_memory(model: Model) -> Model:
    """Move the weights of a loaded model out of the mapped file, in place, and return the model.

    There they begin at any address, and the products of some CPUs round by it: a model that was saved and read back
    would not compute to the bit what it computed before, nor would a run that was killed end as an undisturbed one.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model
