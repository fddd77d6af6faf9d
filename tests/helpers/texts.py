"""The whole of a text that the project reads in blocks."""

from collections.abc import Iterable

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.data.text_tokenizers import token_blocks


def token_ids(text: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the tokens of a text that comes in blocks, (T,)."""
    return np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in token_blocks(text, tokenizer))])
