"""What any sequence classifier is given to read: the inputs that it takes, padded on which side."""

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
