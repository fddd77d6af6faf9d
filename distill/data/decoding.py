"""Tokens put back into text, for a model with another tokenizer to read."""

from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.data.batching import TokenizedExamples
from distill.data.splits import Examples


def decode(
    examples: TokenizedExamples, rows: np.ndarray, tokenizer: PreTrainedTokenizerBase, num_columns: int
) -> Examples:
    """Return the texts, or the pairs of texts, that some rows of ``examples`` hold, without special tokens.

    What the tokenizer did not know is lost, and so may be case and spaces.

    Args:
        num_columns: texts of an example.
    """
    added = np.setdiff1d(tokenizer.all_special_ids, [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id])
    texts = []
    for start, end in zip(examples.offsets[rows], examples.offsets[rows + 1], strict=True):
        columns = _columns(examples.token_ids[start:end], examples.token_type_ids[start:end], added, num_columns)
        texts.append(tuple(str(tokenizer.decode(column.tolist(), skip_special_tokens=True)) for column in columns))
    return Examples(examples.ids[rows], texts, examples.labels[rows])


def _columns(token_ids: np.ndarray, types: np.ndarray, added: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the tokens of each text: by token types or, of a tokenizer without them, between its special tokens."""
    if count == 1:
        return [token_ids]
    if types.any():
        return [token_ids[types == 0], token_ids[types == 1]]
    is_added = np.isin(token_ids, added)
    grouped = groupby(range(len(token_ids)), is_added.__getitem__)
    runs = [np.array(list(places)) for between, places in grouped if not between]
    return [token_ids[run] for run in (*runs, *[np.arange(0)] * count)[:count]]
