"""Words of tokenised texts exchanged for others: neighbours in an embedding, or what a masked-LM head expects."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.data.labels import HIDDEN
from distill.data.token_predictions import labels_at, places_to_predict, predicting
from distill.utils.errors import UserError, loading_problem
from distill.utils.progress import progress_bar

BATCH_SIZE = 64
WORDPIECE, BYTE_LEVEL, SENTENCEPIECE = "##", "\u0120", "\u2581"
"""What begins the pieces of a word in WordPiece, and the words in byte-level and in SentencePiece vocabularies."""
WORD_MARKS = (BYTE_LEVEL, SENTENCEPIECE)
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
OTHER_BYTES = [byte for byte in range(0x100) if byte not in PRINTABLE]
BYTES = {chr(byte): byte for byte in PRINTABLE} | {chr(0x100 + at): byte for at, byte in enumerate(OTHER_BYTES)}
"""The byte behind each sign of a byte-level vocabulary (GPT-2's)."""
ROWS = 1024
"""Words whose neighbours are looked for at a time."""


def whole_words(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return which entries of a vocabulary are words of letters, bool (vocabulary,)."""
    tokens, mark = _tokens_and_mark(tokenizer)
    starts = [mark is None or token.startswith(mark) for token in tokens]
    words = np.array([start and _letters(token, mark).isalpha() for start, token in zip(starts, tokens, strict=True)])
    words[tokenizer.all_special_ids] = False
    return words


def replaceable(examples: TokenizedExamples, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return which tokens are words by themselves, bool (total,): no piece of the same word follows."""
    tokens, mark = _tokens_and_mark(tokenizer)
    if mark is None:
        pieces = np.array([token.startswith(WORDPIECE) for token in tokens])
    else:  # a punctuation mark behind a word has no mark of its own either, and is none of its pieces
        pieces = np.array([not token.startswith(mark) and any(map(str.isalnum, token)) for token in tokens])
        pieces[tokenizer.all_special_ids] = False
    is_piece = pieces[examples.token_ids]
    return whole_words(tokenizer)[examples.token_ids] & ~np.append(is_piece[1:], False)


def _tokens_and_mark(tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], str | None]:
    """Return the vocabulary, and what its words begin with; None where it marks the pieces that go on instead."""
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    counts = {mark: sum(token.startswith(mark) for token in tokens) for mark in (*WORD_MARKS, WORDPIECE)}
    best = max(counts, key=lambda mark: counts[mark])
    return tokens, best if best in WORD_MARKS and counts[best] else None


def _letters(token: str, mark: str | None) -> str:
    """Return the characters of a token, which byte-level vocabularies write as one sign per byte."""
    bare = token.removeprefix(mark or "")
    if mark != BYTE_LEVEL:
        return bare
    return bytes(BYTES.get(sign, 0) for sign in bare).decode(errors="replace")


def nearest_words(word_embeddings: Tensor, words: np.ndarray, token_ids: np.ndarray, count: int) -> np.ndarray:
    """Return the ``count`` words of the highest cosine with each word in ``token_ids``, (vocabulary, count).

    Rows of other tokens hold the token itself.

    Args:
        word_embeddings: (vocabulary, D).
        words: bool (vocabulary,), the words that may come out.
    """
    candidates = torch.from_numpy(np.flatnonzero(words))
    count = min(count, len(candidates) - 1)
    neighbours = np.repeat(np.arange(len(word_embeddings))[:, None], max(count, 1), axis=1)
    if count < 1:
        return neighbours
    directions = F.normalize(word_embeddings.detach().float().cpu(), dim=-1)
    used = np.unique(token_ids)
    for rows in torch.from_numpy(used[words[used]].astype(np.int64)).split(ROWS):
        cosines = directions[rows] @ directions[candidates].T
        cosines = cosines.masked_fill(rows[:, None] == candidates, -torch.inf)
        neighbours[rows.numpy()] = candidates[cosines.topk(count).indices].numpy()
    return neighbours


def replace_words(
    examples: TokenizedExamples,
    where: np.ndarray,
    neighbours: np.ndarray,
    share: float,
    generator: np.random.Generator,
) -> TokenizedExamples:
    """Put one of its neighbours in the place of a ``share`` of the tokens that may be replaced, ``where``."""
    chosen = where & (generator.random(len(where)) < share)
    column = generator.integers(neighbours.shape[1], size=len(where))
    token_ids = np.where(chosen, neighbours[examples.token_ids, column], examples.token_ids)
    return replace(examples, token_ids=token_ids.astype(np.int32))


def load_masked_lm(checkpoint: str | None, key: str, device: torch.device) -> Any:
    """Load a checkpoint with its masked-LM head.

    Args:
        key: that names it, for messages.

    Raises:
        UserError: it cannot be read, or has no such head.
    """
    way_out = "name a masked language model as augmentation.masked_lm, or leave masked_lm out of augmentation.kinds"
    if checkpoint is None:
        raise UserError(f"teacher.checkpoint is null: a BERT from scratch predicts no words; {way_out}")
    try:
        model, info = AutoModelForMaskedLM.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # a damaged file makes transformers fail in any way there is
        raise UserError(f"{key} {checkpoint}: {loading_problem(error)}; {way_out}") from error
    if info["missing_keys"]:
        raise UserError(f"{key} {checkpoint} has no masked-LM head; {way_out}")
    return model.eval().to(device)


@torch.inference_mode()
def predict_words(
    examples: TokenizedExamples,
    where: np.ndarray,
    words: np.ndarray,
    model: Any,
    mask_token_id: int,
    share: float,
    candidates: int,
    generator: np.random.Generator,
) -> TokenizedExamples:
    """Mask a ``share`` of the tokens ``where`` that may be, and put one of the likeliest ``candidates`` into each."""
    chosen = where & (generator.random(len(where)) < share)
    rank = generator.integers(min(candidates, int(words.sum())), size=len(where))
    masked = replace(examples, token_ids=np.where(chosen, mask_token_id, examples.token_ids).astype(np.int32))
    token_ids = examples.token_ids.copy()
    device = next(model.parameters()).device
    forbidden = torch.from_numpy(~words).to(device)
    batches = sorted_batches(examples.lengths, BATCH_SIZE)
    for indices in progress_bar(batches, name="new words", unit="batch", leave=False):
        rows = np.concatenate([np.arange(examples.offsets[index], examples.offsets[index + 1]) for index in indices])
        inputs, _ = collate(masked, indices, device)
        if getattr(model.config, "type_vocab_size", 0) <= 1:
            del inputs["token_type_ids"]
        wanted = torch.full_like(inputs["input_ids"], HIDDEN)
        wanted[inputs["attention_mask"].bool()] = torch.from_numpy(np.where(chosen[rows], 0, HIDDEN)).to(device)
        places = places_to_predict(wanted, reads_logits=True)
        with predicting(model, places):
            logits = model(**inputs).logits[..., : len(words)][labels_at(wanted, places) != HIDDEN]
        likeliest = logits.masked_fill(forbidden, -torch.inf).topk(int(rank.max()) + 1).indices.cpu().numpy()
        rows = rows[chosen[rows]]
        token_ids[rows] = likeliest[np.arange(len(rows)), rank[rows]]
    return replace(examples, token_ids=token_ids)
