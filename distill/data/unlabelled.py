"""Texts without labels for the stages: looked at once, and read again, a part at a time, where they are tokenised.

However many there are, memory holds eight bytes of each and a sample. The teacher says what they mean: of all losses,
``labels`` alone reads nothing of them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.data.labels import HIDDEN
from distill.data.splits import Examples, Splits
from distill.data.unlabelled_files import KEY, Texts, find_text_files, read_texts
from distill.tasks import Task
from distill.utils.errors import UserError
from distill.utils.progress import progress_bar

SAMPLE = 5000
"""Texts whose tokens tell about all of them: of their mean length the error is under two percent."""
REASONS = ("", "blank", "in validation", "in held-out train", "in train", "duplicates")
"""Why a text is not used, in the order in which that is looked at; the first is of those that are."""
USED, BLANK, DUPLICATE = 0, 1, len(REASONS) - 1
_NO_KEYS = np.zeros(0, np.uint64)
BAR_AFTER = 2.0
"""Seconds of reading before a progress bar is shown."""


@dataclass(frozen=True)
class UnlabelledTexts:
    """What a file or folder of texts without labels holds, and which of it is used."""

    task: Task
    files: tuple[Path, ...]
    kept: np.ndarray
    """bool (rows,): the rows that are used."""
    dropped: Mapping[str, int]
    """Why rows are not used, to their number; only what occurs."""
    checksum: str
    """SHA-256 of all texts."""
    sample: Examples
    """At most `SAMPLE` of the used texts, drawn at random, always the same ones."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept))

    @property
    def is_sampled(self) -> bool:
        """Whether there are more texts than the sample has."""
        return len(self.sample) < len(self)

    def chunks(self) -> Iterator[Examples]:
        """Read the files again and yield the used texts, in their order, with their rows as ids; labels are hidden.

        Raises:
            UserError: at the end, if the texts are no longer those that were looked through.
        """
        row, digest = 0, hashlib.sha256()
        for texts in read_texts(self.files, self.task):
            digest.update(_as_bytes(texts))
            rows = row + np.flatnonzero(self.kept[row : row + len(texts)])
            if len(rows):
                yield _without_labels(rows, [texts[index] for index in rows - row])
            row += len(texts)
        if digest.hexdigest() != self.checksum:
            place = self.files[0] if len(self.files) == 1 else self.files[0].parent
            raise UserError(f"{KEY}: {place} was changed since the run began; put back what it was")


def _as_bytes(texts: Texts) -> bytes:
    """Return texts as they are counted in a checksum: alike, whatever parts they are read in."""
    return b"".join("\0".join((*row, "")).encode() for row in texts)


def find_unlabelled(task: Task, place: str, own: Splits) -> UnlabelledTexts:
    """Look through a file or folder of texts without labels and choose the texts that are used.

    Left out are blank texts and pairs of which one is blank, what stands in any part of ``own`` (a student that was
    trained on the texts it is scored on would look better than it is), and all but the first of equal texts. Case and
    white space do not tell texts apart.

    Args:
        place: a file, or a folder of files, as :func:`distill.data.unlabelled_files.find_text_files` takes it.

    Raises:
        UserError: nothing can be read there, or nothing is left of it.
    """
    files, notes = find_text_files(place, task)
    known = [
        _keys_of(own.validation.values()),
        _keys_of([own.held_out]),
        _keys_of([own.train, *([] if own.other is None else [own.other])]),
    ]
    digest, sampler = hashlib.sha256(), _Sampler()
    all_keys, all_reasons = [_NO_KEYS], [np.zeros(0, np.uint8)]
    with progress_bar(name="read texts without labels", unit="text", leave=False, delay=BAR_AFTER) as bar:
        for texts in read_texts(files, task):
            digest.update(_as_bytes(texts))
            keys = text_keys(texts)
            reasons = _reasons(texts, keys, known)
            sampler.add(texts, keys, reasons == USED)
            all_keys.append(keys)
            all_reasons.append(reasons)
            bar.update(len(texts))
    reasons = np.concatenate(all_reasons)
    _mark_duplicates(np.concatenate(all_keys), reasons)
    counts = np.bincount(reasons, minlength=len(REASONS))
    dropped = {why: int(count) for why, count in zip(REASONS, counts, strict=True) if count and why}
    if not counts[USED]:
        found = ", ".join(f"{count:,} {why}" for why, count in dropped.items()) or "no rows"
        raise UserError(f"{KEY}: {place} holds no text that can be used ({found}); give texts that stand nowhere else")
    return UnlabelledTexts(task, files, reasons == USED, dropped, digest.hexdigest(), sampler.draw(), notes)


def unlabelled_in_words(texts: UnlabelledTexts, tokens: int) -> str:
    """Say what there is and what was left out; ``tokens`` is taken for an estimate where there is only a sample."""
    about = "about " if texts.is_sampled else ""
    out = ", ".join(f"{count:,} {why}" for why, count in texts.dropped.items())
    said = f"texts without labels: {len(texts):,} ({about}{tokens:,} tokens), read by the stages alone"
    return f"{said}; left out: {out}" if out else said


def text_keys(texts: Texts) -> np.ndarray:
    """Return uint64 (n,): equal for texts that differ in case and white space alone, and else, all but surely, not."""
    from pandas.util import hash_array  # a fifth of a second for those who have such texts

    plain = ["\0".join(" ".join(text.split()).casefold() for text in row) for row in texts]
    return hash_array(np.array(plain, object), categorize=False)


def _keys_of(parts: Iterable[Examples]) -> np.ndarray:
    return np.concatenate([_NO_KEYS, *(text_keys(part.texts) for part in parts if len(part))])


def _reasons(texts: Texts, keys: np.ndarray, known: Sequence[np.ndarray]) -> np.ndarray:
    """Return for every text the number of the first of `REASONS` not to use it, duplicates aside, uint8 (n,)."""
    reasons = np.zeros(len(texts), np.uint8)
    reasons[[index for index, row in enumerate(texts) if not all(map(str.strip, row))]] = BLANK
    for number, others in enumerate(known, start=BLANK + 1):
        reasons[(reasons == USED) & np.isin(keys, others)] = number
    return reasons


def _mark_duplicates(keys: np.ndarray, reasons: np.ndarray) -> None:
    """Mark in place what is used so far and equals a text before it."""
    rows = np.flatnonzero(reasons == USED)
    _, first = np.unique(keys[rows], return_index=True)
    reasons[np.delete(rows, first)] = DUPLICATE


class _Sampler:
    """Draws texts at random while they pass by: those with the lowest keys, which are as good as random numbers."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[str, ...]] = {}
        self.highest = np.iinfo(np.uint64).max

    def add(self, texts: Texts, keys: np.ndarray, used: np.ndarray) -> None:
        """Take those of the used texts that may be in the sample."""
        for index in np.flatnonzero(used & (keys <= self.highest)):
            self.found.setdefault(int(keys[index]), texts[index])
        if len(self.found) > 2 * SAMPLE:
            self._cut()

    def _cut(self) -> None:
        lowest = sorted(self.found)[:SAMPLE]
        self.found = {key: self.found[key] for key in lowest}
        self.highest = lowest[-1]

    def draw(self) -> Examples:
        """Return the sample, in an order that only the texts decide."""
        self._cut()
        return _without_labels(np.arange(len(self.found)), list(self.found.values()))


def _without_labels(ids: np.ndarray, texts: Texts) -> Examples:
    return Examples(ids, texts, np.full(len(texts), HIDDEN))
