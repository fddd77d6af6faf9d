"""Words of tokenised texts exchanged for others: neighbours in an embedding, or what a masked-LM head expects."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.utils.errors import UserError, loading_problem
from distill.utils.progress import progress_bar

BATCH_SIZE = 64
ROWS = 1024
"""Words whose neighbours are looked for at a time."""


def whole_words(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return which entries of a WordPiece vocabulary are words of letters, bool (vocabulary,)."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    words = np.array([token.isalpha() for token in tokens])
    words[tokenizer.all_special_ids] = False
    return words


def replaceable(examples: TokenizedExamples, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return which tokens are words by themselves, bool (total,): no piece of the same word follows."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    is_piece = np.array([token.startswith("##") for token in tokens])[examples.token_ids]
    return whole_words(tokenizer)[examples.token_ids] & ~np.append(is_piece[1:], False)


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


def load_masked_lm(checkpoint: str | None, device: torch.device, key: str = "teacher.checkpoint") -> nn.Module:
    """Load a checkpoint, called by its ``key``, with its masked-LM head; UserError if it has none."""
    way_out = "leave masked_lm out of augmentation.kinds, or give the checkpoint of a masked language model"
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
    model: nn.Module,
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
        logits = model(**inputs).logits[..., : len(words)]
        logits = logits[inputs["attention_mask"].bool()][torch.from_numpy(chosen[rows]).to(device)]
        likeliest = logits.masked_fill(forbidden, -torch.inf).topk(int(rank.max()) + 1).indices.cpu().numpy()
        rows = rows[chosen[rows]]
        token_ids[rows] = likeliest[np.arange(len(rows)), rank[rows]]
    return replace(examples, token_ids=token_ids)
