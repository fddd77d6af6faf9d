"""What any sequence classifier is given to read: the inputs that it takes, how many tokens, padded on which side."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from distill.data.batching import MODEL_INPUTS


def accepted_inputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of the three inputs of a BERT that the model's forward accepts; all of them if it names none."""
    accepted = inspect.signature(model.forward).parameters
    known = MODEL_INPUTS if "input_ids" not in accepted else [name for name in MODEL_INPUTS if name in accepted]
    return {name: inputs[name] for name in known if name in inputs}


def position_tables(model: nn.Module) -> list[tuple[nn.Module, nn.Embedding]]:
    """Find every module with learned absolute positions, as BERT and its relatives name them."""
    found = ((module, getattr(module, "position_embeddings", None)) for module in model.modules())
    return [(module, table) for module, table in found if isinstance(table, nn.Embedding)]


def first_position(table: nn.Embedding) -> int:
    """Return the row of the first token: RoBERTa-like tables start behind their padding row."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


def positions_of(model: Any) -> int | None:
    """Return how many tokens a model reads in one piece; None for one without such a limit, as XLNet says by -1."""
    usable = [table.num_embeddings - first_position(table) for _, table in position_tables(model)]
    said = getattr(model.config, "max_position_embeddings", None)
    return min(usable) if usable else said if said and said > 0 else None


def reading_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return how batches for a model have to look, for `distill.data.tokenization.tokenize`.

    They are filled up on the side that the tokenizer names, but on the right where positions come from a table: from
    the left, all tokens would have those of later ones. Token types are given to a model that tells some apart, and to
    any other only where its tokenizer gives them: to GPT-2, type 0 is the word with that number.
    """
    tables = (name for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    has_table = any("position" in name or name.endswith("wpe") for name in tables)
    several = (getattr(model.config, "type_vocab_size", None) or 0) > 1
    return {
        "padding_side": "right" if has_table else tokenizer.padding_side,
        "token_types": several or "token_type_ids" in tokenizer.model_input_names,
    }
