"""Copies of models for measuring: on another device, with more positions, on disk."""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.models.inputs import accepted_inputs
from distill.models.positions import first_position, position_tables
from distill.models.windowed_bert import ReadsWindows


def prepare_model(model: nn.Module, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """Return a frozen copy in eval mode on ``device`` in ``dtype``, with SDPA attention where the model has it."""
    prepared = _copy(model).to(device=device, dtype=dtype).eval().requires_grad_(False)
    if isinstance(prepared, PreTrainedModel) and prepared._supports_sdpa:
        prepared.set_attn_implementation("sdpa")
    return prepared


def _copy(model: nn.Module) -> nn.Module:
    """Copy a model but for its embeddings: half of a small BERT, of which a forward pass reads a few rows.

    They are parameters of the copy's own in the original's memory, as long as nobody moves or casts the copy.
    """
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    return copy.deepcopy(model, {id(table): nn.Parameter(table.detach(), requires_grad=False) for table in tables})


def is_speed_only(models: Iterable[nn.Module], length: int) -> bool:
    """Tell whether ``length`` is beyond what one of the models' position tables has room for.

    A model that reads windows is never why: where the others have the positions, it reads windows.
    """
    in_one_piece = (model for model in models if not isinstance(model, ReadsWindows))
    tables = (table for model in in_one_piece for _, table in position_tables(model))
    return any(length > table.num_embeddings - first_position(table) for table in tables)


def extend_positions(model: nn.Module, length: int) -> nn.Module:
    """Return a copy whose position table has ``length`` usable rows, the old ones over and over.

    For measuring speed only: what such a model says about text beyond its table means nothing.
    """
    model = _copy(model)
    config = getattr(model, "config", None)
    for module, table in position_tables(model):
        start = first_position(table)
        usable = table.weight.data[start:]
        tiled = usable.repeat(-(-length // len(usable)), 1)[:length]
        weight = torch.cat([table.weight.data[:start], tiled])
        module.position_embeddings = nn.Embedding.from_pretrained(weight, padding_idx=table.padding_idx)
        if config is not None and hasattr(config, "max_position_embeddings"):
            config.max_position_embeddings = len(weight)  # some models refuse longer inputs by this number
        for name, fill in (("position_ids", torch.arange), ("token_type_ids", torch.zeros)):
            if isinstance(getattr(module, name, None), Tensor):
                row = fill(len(weight), dtype=torch.long, device=weight.device)
                module.register_buffer(name, row[None], persistent=False)
    mechanisms: list[Any] = [module for module in model.modules() if hasattr(module, "extend_positions")]
    for mechanism in mechanisms:
        mechanism.extend_positions(length)
    return model


def make_inputs(
    model: nn.Module, batch_size: int, length: int, *, vocabulary_size: int, device: torch.device | str
) -> dict[str, Tensor]:
    """Return random token ids (B, N) without padding, with the inputs that the model's forward accepts."""
    generator = torch.Generator().manual_seed(0)
    # The first ids are special tokens; a RoBERTa-like model would take its padding id for padding.
    first = min(10, vocabulary_size - 1)
    ids = torch.randint(first, vocabulary_size, (batch_size, length), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: tensor.to(device) for name, tensor in accepted_inputs(model, inputs).items()}


@contextmanager
def saved_copies(models: Mapping[str, PreTrainedModel]) -> Iterator[dict[str, Path]]:
    """Save models for as long as the context lasts, for processes that load them afresh.

    What these run is then the code of the model that is already loaded here, never what lies in a folder that
    nobody said to trust.
    """
    with tempfile.TemporaryDirectory(prefix="compare-") as temporary:
        folders = {role: Path(temporary) / role for role in models}
        for role, folder in folders.items():
            models[role].save_pretrained(folder)
        yield folders
