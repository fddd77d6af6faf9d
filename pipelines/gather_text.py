"""Gather raw text for a general student: the train texts of tasks and other files, without what they are scored on.

    python pipelines/gather_text.py --data-dir GLUE --tasks sst2 cola mrpc stsb rte --output runs/general_text
    python pipelines/gather_text.py --data-dir DATA --tasks imdb --files wiki.train.txt --output runs/general_text
    python pipelines/distill.py --config configs/general.yaml --data.dir runs/general_text

Labels are not read. A text of train that a validation or test split of one of the tasks holds too, whole or by 25
words in a row, stays out, and so does a line of a file; texts that come twice are taken once. A file should have a
paragraph a line. Writes train.txt and validation.txt (every hundredth text) in blocks of `BLOCK` neighbours, drawn
from what they say, and sources.json, which says what was taken and what stayed out. Exit code 0; 2 for a mistake in
the command or the data.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.utils.cli import Parser, run, writable_folder

if TYPE_CHECKING:
    from distill.data.withheld import WithheldTexts

VALIDATION_SHARE = 0.01
BLOCK = 10
"""Texts that stay together: the end of a text is held out from training, and should not be one source alone."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--tasks", nargs="+", default=[], metavar="TASK", help="tasks whose train texts are taken")
    add("--data-dir", metavar="DIR", help="holds a folder for each task; without it they come from the Hub")
    add("--files", nargs="+", type=Path, default=[], metavar="FILE", help="further text files, compressed or not")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    return parser.parse_args(arguments)


def main() -> int:
    """Read the splits and files, leave out what is withheld, write and say what was taken."""
    options = parse()
    from distill.data.text_corpus import read_text
    from distill.data.withheld import WithheldTexts
    from distill.utils.errors import UserError
    from distill.utils.files import write_atomically

    if not options.tasks and not options.files:
        raise UserError("there is nothing to gather; give --tasks, --files or both")
    writable_folder(options.output)
    files = {str(path): read_text(path).split("\n") for path in options.files}
    scored = {name: scored_splits(name, options.data_dir) for name in options.tasks}
    withheld = WithheldTexts(
        text for name, splits in scored.items() for text in task_texts(name, options.data_dir, splits)
    )
    sources: dict[str, Iterable[str]] = {
        f"{name} train": task_texts(name, options.data_dir, ("train",)) for name in options.tasks
    }
    kept, counts = gather(sources | files, withheld)
    for split, lines in kept.items():
        if not lines:
            raise UserError(f"no text is left for {split}; give more --tasks or --files")
        write_atomically(options.output / f"{split}.txt", "\n".join(in_blocks(lines)) + "\n")
    about = {"sources": counts, "withheld_splits": {name: list(splits) for name, splits in scored.items()}}
    write_atomically(options.output / "sources.json", json.dumps(about, indent=1) + "\n")
    for name, count in counts.items():
        print(f"{name}: " + ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in count.items()))
    print(f"written to {options.output}: {len(kept['train']):,} texts, {len(kept['validation']):,} for validation")
    return 0


def gather(
    sources: Mapping[str, Iterable[str]], withheld: "WithheldTexts"
) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    """Return the texts of each split, a line each, and by source how many were taken and how many were not."""
    from distill.utils.progress import progress_bar

    kept: dict[str, list[str]] = {"train": [], "validation": []}
    seen, counts = set[str](), {}
    for name, texts in sources.items():
        count = {"taken": 0, "withheld": 0, "seen_before": 0}
        with progress_bar(texts, name=name, unit="text") as bar:
            for text in bar:
                line = " ".join(text.split())
                if not line:
                    continue
                reason = "seen_before" if line in seen else "withheld" if line in withheld else "taken"
                count[reason] += 1
                seen.add(line)
                if reason == "taken":
                    kept["validation" if is_for_validation(line) else "train"].append(line)
        counts[name] = count
    return kept, counts


def scored_splits(name: str, data_dir: str | None) -> tuple[str, ...]:
    """Return the splits of a task that a model is scored on: those of validation, and test where there is one."""
    from distill.data.locate import split_files
    from distill.tasks import get_task
    from distill.utils.errors import UserError

    splits = get_task(name).validation_splits
    if "test" in splits:
        return splits
    try:
        if data_dir is not None:
            split_files(data_dir, name, ("test",))
    except UserError:
        return splits
    return (*splits, "test")


def task_texts(name: str, data_dir: str | None, splits: Iterable[str]) -> Iterator[str]:
    """Yield the texts of some splits of a task, both of a pair one after the other."""
    from distill.data.sources import open_source
    from distill.tasks import get_task

    task = get_task(name)
    for opened in open_source(task, data_dir, 0, tuple(splits), labelled=False).values():
        for table in opened.tables:
            for row in zip(*(table[column].to_pylist() for column in task.text_columns), strict=True):
                yield from (text for text in row if text)


def is_for_validation(text: str) -> bool:
    """Draw a text for validation by what it says, so that it is drawn whatever else is gathered."""
    return drawn(text) < VALIDATION_SHARE


def in_blocks(lines: Sequence[str]) -> list[str]:
    """Return lines in another order: blocks of `BLOCK` neighbours, in the order that their first ones draw."""
    starts = sorted(range(0, len(lines), BLOCK), key=lambda start: drawn(lines[start]))
    return [line for start in starts for line in lines[start : start + BLOCK]]


def drawn(text: str) -> float:
    """Return a number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
