"""Texts that a model is to be scored on, looked for in a text that it is to be trained on.

Two texts are the same where their words are, whatever stands between these and however they are capitalised or their
accents are encoded. A long text is also found by a part: its words are cut into runs of `RUN`, one behind the other,
and each of these is looked for at every place. So every run of 2 `RUN` - 1 words of a withheld text is found, and a
whole one of `RUN` or more. In scripts without spaces a character is a word.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from distill.data.locate import has_split
from distill.data.rows import check_rows
from distill.data.sources import open_source
from distill.tasks import Task

RUN = 13
"""Words, as Brown et al. (arXiv:2005.14165, appendix C) take for texts that are not the same by chance."""
NO_SPACES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, kana and Han."""
ROWS_AT_ONCE = 10_000
WORD = re.compile(rf"[{NO_SPACES}]|[^\W{NO_SPACES}]+")


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
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _run(words: Sequence[str], start: int) -> str:
    return " ".join(words[start : start + RUN])


def scored_splits(task: Task, source: str | None) -> tuple[str, ...]:
    """Return the splits that a task's models are scored on: those of validation, and those of test that there are.

    Args:
        source: the folder of the data, or None for the Hub.

    Raises:
        UserError: a split is there and cannot be read, or parts of it are missing.
    """
    tests = task.test_splits
    if source is not None:
        wanted = [name for name in tests or ("test",) if name not in task.validation_splits]
        tests = tuple(name for name in wanted if has_split(source, task.name, name))
    return (*task.validation_splits, *tests)


def task_texts(task: Task, source: str | None, splits: Sequence[str]) -> Iterator[str]:
    """Yield the texts of some splits of a task, the second one of a pair behind the first; labels are not read.

    Raises:
        UserError: a split is missing, or a row is no text.
    """
    for opened in open_source(task, source, 0, splits, labelled=False).values():
        columns = check_rows(task, opened.tables, opened.where, labelled=False).texts
        for start in range(0, len(columns[0]), ROWS_AT_ONCE):
            rows = zip(*(column.slice(start, ROWS_AT_ONCE).to_pylist() for column in columns), strict=True)
            yield from (text for row in rows for text in row if text)
