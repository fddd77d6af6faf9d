"""Tokenizers: trained on texts, compared, and applied to examples."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, PreTrainedTokenizerBase, TokenizersBackend

from distill.data.batching import TokenizedExamples
from distill.data.splits import Examples
from distill.utils.progress import progress_bar

# In this order they get the ids 0 to 4; [PAD] = 0 is BertConfig's default pad_token_id.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PROBES = ("The quick brown fox doesn't jump, 3 times!", "Ünïcödé ß 한국어 données № 5")
"""Two tokenizers that agree on these and have the same vocabulary size are taken for the same one."""
LONGEST_WORD = 100
"""Characters; WordPiece takes what is longer for unknown, and a trainer needs time quadratic in it."""
TEXTS_PER_CALL = 1000
PROGRESS_BAR_FROM = 20_000
Encoded = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]], Sequence[Any] | None]
"""Token ids and token types of every text, and its `tokenizers.Encoding` where there is one."""


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> BertTokenizer:
    """Train a lower-casing WordPiece vocabulary on ``texts`` and wrap it as BERT's fast tokenizer.

    The vocabulary has at most ``vocabulary_size`` entries, special tokens included: fewer where the
    texts have nothing more to merge, more only where their single characters alone exceed it. It
    depends on the multiset of texts only. Pairs are encoded as [CLS] a [SEP] b [SEP] with token types
    0 and 1; ``save_pretrained`` and ``AutoTokenizer.from_pretrained`` give the same tokenizer back.
    Accents are stripped as BERT does it, but where that changes most words they are letters and stay.
    """
    texts = list(texts)
    strip_accents = False if _accents_are_letters(texts) else None
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    distinct_words: set[str] = set()
    lines = []
    for line in texts:
        normal = tokenizer.normalizer.normalize_str(line)
        words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
        known = [word for word in words if len(word) <= LONGEST_WORD]
        distinct_words.update(known)
        lines.append(line if len(known) == len(words) else " ".join(known))
    # The trainer numbers the ##-characters in the order of a randomly seeded hash map and breaks ties
    # between merges by those numbers (huggingface/tokenizers#1794); named beforehand, they are fixed.
    inner_characters = sorted({f"##{character}" for word in distinct_words for character in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[*SPECIAL_TOKENS, *inner_characters], show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(with_added_tokens=True), strip_accents=strip_accents)


def _accents_are_letters(texts: Iterable[str]) -> bool:
    """Tell whether stripping accents would change most words.

    It decomposes first, which breaks the syllables of Hangul into their parts, and drops every mark: vowel signs of
    Indic scripts, Thai's tones, what tells ga from ka in kana. In European languages it changes a minority of words.
    """
    kept, stripped = (normalizers.BertNormalizer(lowercase=True, strip_accents=strip) for strip in (False, True))
    counts = Counter(word for text in texts for word in kept.normalize_str(text).split())
    changed = sum(count for word, count in counts.items() if stripped.normalize_str(word) != word)
    return 2 * changed > counts.total()


def is_empty(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer knows only special tokens; transformers builds such a one where files are missing."""
    return len(tokenizer) <= len(set(tokenizer.all_special_ids))


def tokenize(
    examples: Examples,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    *,
    padding_side: str = "right",
    token_types: bool = True,
) -> TokenizedExamples:
    """Tokenise texts or pairs; of what is longer than ``max_length`` tokens (special ones included) the end is cut.

    None cuts nothing. In a pair, tokens are cut from the longer of the two texts. How batches of them have to look,
    the model says by which they are read (`distill.models.inputs.reading_of`).
    """
    token_ids, token_type_ids, lengths, num_cut = [], [], [], 0
    encode = _encoder(tokenizer, max_length)
    for chunk in _chunks(examples.texts):
        ids, types, encodings = encode(chunk)
        lengths.append(np.fromiter(map(len, ids), np.int64, len(chunk)))
        num_cut += _count_cut(encodings, lengths[-1], max_length)
        total = int(lengths[-1].sum())
        token_ids.append(np.fromiter(chain.from_iterable(ids), np.int32, total))
        token_type_ids.append(np.fromiter(chain.from_iterable(types), np.uint8, total))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return TokenizedExamples(
        np.concatenate(token_ids),
        np.concatenate(token_type_ids),
        offsets,
        examples.labels,
        examples.ids,
        tokenizer.pad_token_id or 0,
        padding_side=padding_side,
        token_types=token_types,
        num_cut=num_cut,
    )


def _encoder(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> Callable[[list[tuple[str, ...]]], Encoded]:
    """Return how to encode some texts or pairs."""
    settings: dict[str, Any] = {"truncation": max_length is not None, "max_length": max_length, "verbose": False}

    def by_call(texts: list[tuple[str, ...]]) -> Encoded:
        columns = (list(column) for column in zip(*texts, strict=True))
        encoded = tokenizer(*columns, return_token_type_ids=True, return_attention_mask=False, **settings)
        return encoded["input_ids"], encoded["token_type_ids"], encoded.encodings

    def by_backend(texts: list[tuple[str, ...]]) -> Encoded:
        encodings = backend.encode_batch_fast([text if len(text) > 1 else text[0] for text in texts])
        return [each.ids for each in encodings], [each.type_ids for each in encodings], encodings

    # What transformers makes of every text beside its ids takes nearly as long as these; some classes do it their way.
    own, plain = type(tokenizer), TokenizersBackend
    if any(getattr(own, name, None) is not getattr(plain, name) for name in ("__call__", "_encode_plus")):
        return by_call
    tokenizer("", **settings)  # leaves truncation as it is wanted
    backend: Tokenizer = tokenizer.backend_tokenizer
    return by_backend


def _count_cut(encodings: Sequence[Any] | None, lengths: np.ndarray, max_length: int | None) -> int:
    full = np.flatnonzero(lengths == max_length)
    if encodings is None:  # of a tokenizer in Python, which keeps nothing of what it cuts
        return len(full)
    return sum(bool(encodings[int(index)].overflowing) for index in full)


def _chunks(texts: list[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    starts: range | Iterator[int] = range(0, len(texts), TEXTS_PER_CALL)
    if len(texts) >= PROGRESS_BAR_FROM:
        starts = iter(progress_bar(starts, name="tokenise", unit="k texts", leave=False, disable=None))
    for start in starts:
        yield texts[start : start + TEXTS_PER_CALL]
