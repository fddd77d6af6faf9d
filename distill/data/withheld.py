"""Texts that a model is to be scored on, looked for in a text that it is to be trained on.

Two texts are the same where their words are, whatever stands between these and however they are capitalised. A long
text is also found by a part: its words are cut into runs of `RUN`, one behind the other, and each of these is looked
for at every place. So every run of 2 `RUN` - 1 words of a withheld text is found, and a whole one of `RUN` or more.
"""

import re
from collections.abc import Iterable, Sequence

RUN = 13
"""Words, as Brown et al. (arXiv:2005.14165, appendix C) take for texts that are not the same by chance."""
WORD = re.compile(r"\w+")


class WithheldTexts:
    """The texts that must not be trained on; ``text in withheld`` tells whether one is the same or holds a part."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.whole: set[str] = set()
        self.runs: set[str] = set()
        for text in texts:
            words = words_of(text)
            self.whole.add(" ".join(words))
            self.runs.update(_run(words, start) for start in range(0, len(words) - RUN + 1, RUN))
        self.whole.discard("")

    def __contains__(self, text: str) -> bool:
        words = words_of(text)
        if " ".join(words) in self.whole:
            return True
        return any(_run(words, start) in self.runs for start in range(len(words) - RUN + 1))


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters, without punctuation."""
    return WORD.findall(text.lower())


def _run(words: Sequence[str], start: int) -> str:
    return " ".join(words[start : start + RUN])
