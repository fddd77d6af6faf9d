"""A BERT, or one of its relatives, that reads texts longer than its positions in windows; its logits are their mean.

Text [CLS] t1 ... tn [SEP] is cut into windows [CLS] t ... t [SEP] of as many tokens as the model has positions, one
after the other, without overlap. Every window counts by its share of the text's tokens.

Legend: B texts, N tokens, M windows of all texts, W tokens of the longest window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from os import PathLike
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import BertForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from distill.models.positions import first_position, positions_of
from students.families import FAMILIES

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


def cut(inputs: Mapping[str, Tensor], window: int, pad_token_id: int = 0) -> Windows:
    """Cut texts, padded on the right, into windows of at most ``window`` tokens.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and ``token_type_ids``, each (B, N).
        window: in tokens, [CLS] and [SEP] included.
        pad_token_id: what windows that are shorter than others end in.
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
    fill = {"input_ids": pad_token_id}
    cut_inputs = {
        name: values[texts[:, None], sources].where(real, fill.get(name, 0)) for name, values in inputs.items()
    }
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


class ReadsWindows:
    """Makes a classifier read window after window of a text with more tokens than it has positions.

    Token types are for those that tell them apart: of one type there is nothing to say, and others take none.
    """

    config: Any
    base_model: Any

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Return (B, C) logits, as the classifier does; labels are not accepted with a text in windows."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if getattr(self.config, "type_vocab_size", 0) > 1:
            given["token_type_ids"] = token_type_ids
        classify: Any = super().forward  # type: ignore[misc]  # of the class beside it
        table = self.base_model.embeddings.position_embeddings
        window = table.num_embeddings - first_position(table)
        if input_ids is None or input_ids.shape[1] <= window:
            return classify(**given, **options)
        defaults = {"attention_mask": torch.ones_like(input_ids), "token_type_ids": torch.zeros_like(input_ids)}
        whole = {name: defaults[name] if value is None else value for name, value in given.items()}
        windows = cut(whole, window, pad_of(self))
        return SequenceClassifierOutput(logits=windows.mean(classify(**windows.inputs, **options).logits))

    def save_pretrained(self, save_directory: str | PathLike[str], *arguments: Any, **options: Any) -> None:
        """Save the weights as the plain classifier's: transformers writes down the name of the class that saves."""
        model: Any = self
        with torch.device("meta"):
            plain = plain_class(model)(model.config)
        plain.load_state_dict(model.state_dict(), assign=True)
        plain.save_pretrained(save_directory, *arguments, **options)


class WindowedBert(ReadsWindows, BertForSequenceClassification):
    """BERT's classifier that reads windows."""


@cache
def windowed_class(plain: Any) -> Any:
    """Return the class of a family's classifiers that read windows, for that of those that do not."""
    if plain is BertForSequenceClassification:
        return WindowedBert
    return type(f"Windowed{plain.__name__}", (ReadsWindows, plain), {"__module__": __name__})


def plain_class(model: PreTrainedModel) -> Any:
    """Return transformers' own class of a classifier that may read windows."""
    return next(each for each in type(model).__mro__ if not issubclass(each, ReadsWindows))


def classifier_class(config: Any) -> Any:
    """Return the class of the classifiers of a family that read windows."""
    return windowed_class(getattr(transformers, FAMILIES[config.model_type].classifier))


def reading_windows(model: PreTrainedModel) -> PreTrainedModel:
    """Return a classifier whose layers are BERT's as one that reads windows, with copies of its weights.

    Any other model is returned as it is.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is None or type(model).__name__ != family.classifier:
        return model
    plain: Any = type(model)
    windowed: Any = windowed_class(plain)(model.config)
    windowed.load_state_dict(model.state_dict())
    return windowed.to(model.dtype).train(model.training)


def pad_of(model: Any) -> int:
    """Return the number of a model's padding token."""
    return int(model.config.pad_token_id or 0)


def window_lengths(model: Any, length: int) -> list[int]:
    """Return the tokens of each window in which a model reads a text of ``length`` tokens; one for most models."""
    if not isinstance(model, ReadsWindows) or length <= (positions := positions_of(model)):
        return [length]
    room = positions - SPECIAL
    return [min(room, length - SPECIAL - start) + SPECIAL for start in range(0, length - SPECIAL, room)]
