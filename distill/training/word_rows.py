"""Train of a word embedding the rows of those words that the examples contain; all others keep their vectors.

A vocabulary of 30,000 words is half the parameters of a small encoder, and few thousand examples contain a quarter of
it. No other row ever gets a gradient, but the optimizer would move all of them at every step, keep two moments of
each, and the gradient would be a table of mostly zeros. Shapes: V words, r rows that are trained, D hidden size.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORTH_IT = 0.75
"""Where the examples contain a larger share of the vocabulary, nothing is gained."""


class WordRows(nn.Module):
    """The rows of an embedding that train; until they are released, they are what it looks up where gradients count.

    Its own weight stays behind until ``write_back`` brings it up to date.

    Args:
        embedding: (V, D); its weight no longer trains.
        words: int64 (r,), ascending: what the examples contain.

    Attributes:
        rows: (r, D).
    """

    places: Tensor
    words: Tensor

    def __init__(self, embedding: nn.Embedding, words: np.ndarray) -> None:
        super().__init__()
        weight = embedding.weight
        self.rows = nn.Parameter(weight.detach()[torch.from_numpy(words).to(weight.device)].clone())
        places = torch.zeros(len(weight), dtype=torch.int64)
        places[torch.from_numpy(words)] = torch.arange(len(words))
        # Buffers, so that they go where the model goes.
        self.register_buffer("places", places.to(weight.device), persistent=False)
        self.register_buffer("words", torch.from_numpy(words).to(weight.device), persistent=False)
        padding = embedding.padding_idx
        self.padding = int(places[padding]) if padding is not None and padding in words else None
        self.embedding = [embedding]  # in a list it is no module of this one
        weight.requires_grad_(False)
        self.handle = embedding.register_forward_hook(self._look_up)

    def _look_up(self, embedding: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return output
        return F.embedding(self.places[inputs[0]], self.rows, padding_idx=self.padding)

    def stand_in(self, groups: list[dict[str, Any]]) -> None:
        """Put the rows in the place of the embedding's weight among the optimizer's ``groups``."""
        weight = self.embedding[0].weight
        for group in groups:
            group["params"] = [self.rows if parameter is weight else parameter for parameter in group["params"]]

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the rows into the embedding's own weight."""
        self.embedding[0].weight[self.words] = self.rows

    def release(self) -> None:
        """Leave the embedding as it was but for the vectors of the words that trained."""
        self.write_back()
        self.handle.remove()
        self.embedding[0].weight.requires_grad_(True)


def trained_rows(model: Any, token_ids: np.ndarray) -> WordRows | None:
    """Return the rows of a model's word embedding that some tokens need; None where all of it has to train.

    Args:
        model: whose word embedding would train.
        token_ids: of all examples.
    """
    embedding = model.get_input_embeddings()
    if type(embedding) is not nn.Embedding or not embedding.weight.requires_grad or embedding.max_norm is not None:
        return None
    words = np.flatnonzero(np.bincount(token_ids, minlength=len(embedding.weight)))
    return WordRows(embedding, words) if len(words) <= WORTH_IT * len(embedding.weight) else None
