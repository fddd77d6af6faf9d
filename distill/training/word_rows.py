"""Train only those rows of a word embedding whose words occur in the examples; all others keep their vectors.

A vocabulary of 30,000 words is half the parameters of a small encoder, and a few thousand examples contain a quarter
of it. No other row would get a gradient, but the optimizer would move all of them at every step and keep two moments
of each, and the gradient would be a table of mostly zeros. Shapes: V words, r rows that are trained, D hidden size.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.data.batching import TokenizedExamples

WORTH_IT = 0.75
"""Where the examples contain a larger share of the vocabulary, nothing is gained."""
TOKENS_AT_ONCE = 2**20
"""So many tokens are looked through at a time: those of texts without labels may be on disk."""


class WordRows(nn.Module):
    """The rows of an embedding that train; until they are released, it looks words up in them where gradients count.

    Its own weight stays behind until ``write_back`` brings it up to date. A word that has no row is an error there.

    Args:
        embedding: (V, D); its weight no longer trains.
        words: int64 (r,), ascending.

    Attributes:
        rows: (r, D).
    """

    def __init__(self, embedding: nn.Embedding, words: np.ndarray) -> None:
        super().__init__()
        weight = embedding.weight
        self.words = torch.from_numpy(words)
        self.rows = nn.Parameter(weight.detach()[self.words.to(weight.device)].clone())
        # No buffers: processes that train together would send them to each other at every step.
        self.places = torch.full((len(weight),), -1)
        self.places[self.words] = torch.arange(len(words))
        padding = embedding.padding_idx
        self.padding = int(self.places[padding]) if padding is not None and padding in words else None
        self.embedding = [embedding]  # in a list it is no module of this one
        weight.requires_grad_(False)
        self.handle = embedding.register_forward_hook(self._look_up)

    def _look_up(self, embedding: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return output
        self.places = self.places.to(output.device)
        return F.embedding(self.places[inputs[0]], self.rows, padding_idx=self.padding)

    def stand_in(self, groups: list[dict[str, Any]]) -> None:
        """Put the rows in the place of the embedding's weight among the optimizer's ``groups``."""
        weight = self.embedding[0].weight
        for group in groups:
            group["params"] = [self.rows if parameter is weight else parameter for parameter in group["params"]]

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the rows into the embedding's own weight."""
        weight = self.embedding[0].weight
        weight[self.words.to(weight.device)] = self.rows

    def release(self) -> None:
        """Let the embedding look words up in its own weight again, and train it."""
        self.handle.remove()
        self.embedding[0].weight.requires_grad_(True)


def trained_rows(model: Any, examples: TokenizedExamples) -> WordRows | None:
    """Return the rows of a model's word embedding that its examples need; None where all of it has to train.

    Args:
        model: whose word embedding would train.
        examples: all that the stage reads.
    """
    embedding = model.get_input_embeddings()
    if model.get_output_embeddings() is not None:  # a language model predicts words by the same matrix, all of them
        return None
    if type(embedding) is not nn.Embedding or not embedding.weight.requires_grad or embedding.max_norm is not None:
        return None
    words = words_of(examples, len(embedding.weight))
    return WordRows(embedding, words) if len(words) <= WORTH_IT * len(embedding.weight) else None


def words_of(examples: TokenizedExamples, vocabulary: int) -> np.ndarray:
    """Return the words that batches of some examples contain, the padding's too: int64 (r,), ascending."""
    occurs = np.zeros(vocabulary, bool)
    occurs[examples.pad_token_id] = True
    for start in range(0, len(examples.token_ids), TOKENS_AT_ONCE):
        occurs[examples.token_ids[start : start + TOKENS_AT_ONCE]] = True
    return np.flatnonzero(occurs)
