"""What a tokenizer makes of the texts: cut at their end, or not known to it."""

from collections.abc import Iterator, Mapping

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.data.batching import TokenizedExamples
from distill.utils.findings import WARNING, Finding

TOO_MUCH = 0.05
"""Share of texts cut, or of tokens unknown, above which a warning is worth its line."""
MOST = 0.5
"""The same of one split, which may be small."""


def inspect_tokens(
    splits: Mapping[str, TokenizedExamples],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    whose: str = "teacher",
) -> Iterator[Finding]:
    """Warn of texts that lose their end and of tokens that are not known, in all splits or in one of them.

    Args:
        splits: by the names that are shown.
        max_length: what texts were cut at.
        whose: the tokenizer is, teacher or student.
    """
    cut = {name: (part.num_cut, len(part)) for name, part in splits.items()}
    unknown = {name: unknown_tokens(part, tokenizer) for name, part in splits.items()}
    if found := _too_much(cut):
        share, where = found
        yield Finding(
            WARNING,
            f"{share} of the texts{where} are longer than {max_length} tokens and lose their end; "
            "raise data.max_length if what matters may stand there",
        )
    if found := _too_much(unknown):
        share, where = found
        yield Finding(
            WARNING,
            f"{share} of the tokens{where} are unknown to the {whose}'s tokenizer; "
            f"give a {whose}.checkpoint that was trained on texts of this language and kind",
        )


def unknown_tokens(part: TokenizedExamples, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many tokens stand for what the tokenizer does not know, and how many tokens stand for text."""
    unknown = 0 if tokenizer.unk_token_id is None else int(np.sum(part.token_ids == tokenizer.unk_token_id))
    added = [token for token in tokenizer.all_special_ids if token != tokenizer.unk_token_id]
    return unknown, int(np.sum(~np.isin(part.token_ids, added)))


def _too_much(counts: Mapping[str, tuple[int, int]]) -> tuple[str, str] | None:
    """Return the share and where it is: of all splits together, else of the worst of them, None if it is small.

    Args:
        counts: of each split, the number of those in question and of all.
    """
    of_all = (sum(number for number, _ in counts.values()), sum(count for _, count in counts.values()))
    worst = max(counts, key=lambda name: counts[name][0] / max(1, counts[name][1]))
    for (number, count), where, least in ((of_all, "", TOO_MUCH), (counts[worst], f" of {worst}", MOST)):
        if number > least * count:
            return f"{100 * number / count:.1f} %", where
    return None
