"""A BERT that reads texts longer than its positions in windows; its logits are the mean over these.

Text [CLS] t1 ... tn [SEP] is cut into windows [CLS] t ... t [SEP] of as many tokens as the model has positions, one
after the other, without overlap. Every window counts by its share of the text's tokens.

Legend: B texts, N tokens, M windows of all texts, W tokens of the longest window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from transformers import BertForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

SPECIAL = 2
"""[CLS] and [SEP], which every window has of its own."""


@dataclass(frozen=True)
class Windows:
    """The windows of a batch of texts, and the way back."""

    inputs: dict[str, Tensor]
    """input_ids, attention_mask, token_type_ids, each (M, W)."""
    texts: Tensor
    """(M,): the text that a window is of."""
    shares: Tensor
    """(M,): a window's share of its text's tokens."""
    places: Tensor
    """(B, N): where in M * W each token of the texts stands."""
    mask: Tensor
    """(B, N) bool: the texts' real tokens."""

    def mean(self, values: Tensor) -> Tensor:
        """Average values of windows (M, K) into values of texts (B, K)."""
        weighted = values * self.shares[:, None].to(values.dtype)
        return values.new_zeros(len(self.mask), values.shape[-1]).index_add(0, self.texts, weighted)

    def join(self, states: Tensor) -> Tensor:
        """Put states of windows (M, W, D) together to those of the texts (B, N, D), zero at padding.

        Every token has its state of its window, the first one the mean over the windows.
        """
        joined = states.flatten(0, 1)[self.places]
        joined[:, 0] = self.mean(states[:, 0])
        return joined * self.mask[..., None]


def cut(inputs: Mapping[str, Tensor], window: int) -> Windows:
    """Cut texts, padded on the right, into windows of at most ``window`` tokens.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and ``token_type_ids``, each (B, N).
        window: in tokens, [CLS] and [SEP] included.
    """
    mask = inputs["attention_mask"].bool()
    room = window - SPECIAL
    lengths = mask.sum(1)
    inner = lengths - SPECIAL
    counts = (-(-inner // room)).clamp(min=1)
    first = counts.cumsum(0) - counts
    texts = torch.arange(len(mask), device=mask.device).repeat_interleave(counts)
    starts = (torch.arange(len(texts), device=mask.device) - first[texts]) * room
    sizes = (inner[texts] - starts).clamp(max=room)
    width = int(sizes.max()) + SPECIAL
    columns = torch.arange(width, device=mask.device)
    is_last = columns == sizes[:, None] + 1
    sources = torch.where(is_last, lengths[texts, None] - 1, starts[:, None] + columns)
    sources = torch.where(columns == 0, 0, sources)
    real = columns < sizes[:, None] + SPECIAL
    sources = sources * real
    cut_inputs = {name: values[texts[:, None], sources] * real for name, values in inputs.items()}
    shares = sizes / inner[texts].clamp(min=1)
    return Windows(cut_inputs, texts, shares, _places(mask, first, counts, width, room), mask)


def _places(mask: Tensor, first: Tensor, counts: Tensor, width: int, room: int) -> Tensor:
    """Return where in (M * W) each token of the texts stands: (B, N)."""
    position = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    lengths = mask.sum(1, keepdim=True)
    inside = (position - 1).clamp(min=0)
    window, column = inside // room, inside % room + 1
    is_last = position == lengths - 1
    last_window = counts[:, None] - 1
    window = torch.where(is_last, last_window, window)
    column = torch.where(is_last, lengths - 1 - last_window * room, column)
    column = torch.where(position == 0, 0, column)
    return ((first[:, None] + window) * width + column) * mask


class WindowedBert(BertForSequenceClassification):
    """BERT's classifier; of a text with more tokens than it has positions it reads window after window."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Return (B, C) logits, as BERT does; labels are not accepted with a text in windows."""
        window = int(self.config.max_position_embeddings)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        if input_ids is None or input_ids.shape[1] <= window:
            return super().forward(**given, **options)
        ones = torch.ones_like(input_ids)
        defaults = {"attention_mask": ones, "token_type_ids": torch.zeros_like(input_ids)}
        windows = cut({name: defaults[name] if value is None else value for name, value in given.items()}, window)
        return SequenceClassifierOutput(logits=windows.mean(super().forward(**windows.inputs, **options).logits))

    def save_pretrained(self, save_directory: str | PathLike[str], *arguments: Any, **options: Any) -> None:
        """Save the weights as a plain BERT's: transformers writes down the name of the class that saves."""
        with torch.device("meta"):
            plain = BertForSequenceClassification(self.config)
        plain.load_state_dict(self.state_dict(), assign=True)
        plain.save_pretrained(save_directory, *arguments, **options)


def reading_windows(model: PreTrainedModel) -> PreTrainedModel:
    """Return a BERT classifier as one that reads windows, with copies of its weights; any other model as it is."""
    if type(model) is not BertForSequenceClassification:
        return model
    windowed: Any = WindowedBert(model.config)
    windowed.load_state_dict(model.state_dict())
    return windowed.to(model.dtype)


def window_lengths(model: Any, length: int) -> list[int]:
    """Return the tokens of each window in which a model reads a text of ``length`` tokens; one for most models."""
    if not isinstance(model, WindowedBert) or length <= model.config.max_position_embeddings:
        return [length]
    room = int(model.config.max_position_embeddings) - SPECIAL
    return [min(room, length - SPECIAL - start) + SPECIAL for start in range(0, length - SPECIAL, room)]
