"""Gather raw text for a general student: the train texts of tasks and other files, without what they are scored on.

    python pipelines/gather_text.py --data.dir GLUE --tasks sst2 cola mrpc stsb rte --output runs/general_text
    python pipelines/gather_text.py --files reviews.txt wiki.txt.gz --withhold my_test.txt --output runs/general_text
    python pipelines/distill.py --config configs/general.yaml --data.dir runs/general_text

Labels are not read. A text of train that a validation or test split of one of the tasks holds too, whole or by 25
words in a row, stays out, and so does a line of a file; texts that come twice are taken once. A file should have a
paragraph a line. Writes train.txt and validation.txt (about one text in a hundred) in blocks of ten neighbours, drawn
from what they say, and sources.json, which says what was taken and what stayed out. Exit code 0; 2 for a mistake in
the command or the data.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import chain
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
    add("--data.dir", dest="data_dir", metavar="DIR", help="holds a folder for each task; without it: the Hub")
    add("--files", nargs="+", type=Path, default=[], metavar="FILE", help="further text files, compressed or not")
    add("--withhold", nargs="+", type=Path, default=[], metavar="FILE", help="text files that must not be trained on")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    return parser.parse_args(arguments)


def main() -> int:
    """Read the splits and files, leave out what is withheld, write and say what was taken."""
    options = parse()
    from distill.data.withheld import WithheldTexts, scored_splits, task_texts
    from distill.tasks import TASKS
    from distill.utils.errors import UserError, choices_hint
    from distill.utils.files import write_atomically

    if not options.tasks and not options.files:
        raise UserError("there is nothing to gather; give --tasks, --files or both")
    for name in options.tasks:
        if name not in TASKS:
            raise UserError(f"--tasks: {name!r} is none of them; {choices_hint(name, TASKS)}, or give text as --files")
    writable_folder(options.output)
    tasks, source = [TASKS[name] for name in options.tasks], options.data_dir
    files = {str(path): lines_of(path) for path in options.files}
    withheld_files = [lines_of(path) for path in options.withhold]
    scored = {task.name: scored_splits(task, source) for task in tasks}
    held_back = [task_texts(task, source, scored[task.name]) for task in tasks]
    withheld = WithheldTexts(chain.from_iterable([*held_back, *withheld_files]))
    train: dict[str, Iterable[str]] = {f"{task.name} train": task_texts(task, source, ("train",)) for task in tasks}
    texts, counts = gather(train | files, withheld)
    if len(texts) < 2:
        raise UserError(f"{len(texts)} texts are left, and train and validation need one each; give more")
    kept = split(texts)
    for name, lines in kept.items():
        write_atomically(options.output / f"{name}.txt", "\n".join(in_blocks(lines)) + "\n")
    about = {"sources": counts, "withheld_splits": {name: list(splits) for name, splits in scored.items()}}
    write_atomically(options.output / "sources.json", json.dumps(about, indent=1) + "\n")
    for task in tasks:
        absent = [name for name in task.test_splits if name not in scored[task.name]]
        not_there = f"; not there: {', '.join(absent)}" if absent else ""
        print(f"withheld of {task.name}: {', '.join(scored[task.name])}{not_there}")
    for name, count in counts.items():
        print(f"{name}: " + ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in count.items()))
    print(f"written to {options.output}: {len(kept['train']):,} texts, {len(kept['validation']):,} for validation")
    return 0


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a text file; UserError for a table, whose labels and other columns are no text."""
    from distill.data.locate import is_readable
    from distill.data.text_parts import open_part
    from distill.utils.errors import UserError

    if is_readable(path) and ".txt" not in path.suffixes:
        raise UserError(f"{path} is a table; write the column of its texts to a .txt file, a text a line")
    part = open_part(path)  # here and not below: what is wrong with a file is said before anything is read
    return (line for block in part for line in block.split("\n"))


def gather(
    sources: Mapping[str, Iterable[str]], withheld: "WithheldTexts"
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Return the texts, a line each, and by source how many were taken and how many were not."""
    from distill.utils.progress import progress_bar

    taken, seen, counts = list[str](), set[str](), {}
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
                    taken.append(line)
        counts[name] = count
    return taken, counts


def split(texts: Sequence[str]) -> dict[str, list[str]]:
    """Share texts out to train and validation, which gets at least one, and the same ones whatever else there is."""
    left_out = {text for text in texts if drawn(text) < VALIDATION_SHARE} or {min(texts, key=drawn)}
    return {
        "train": [text for text in texts if text not in left_out],
        "validation": [text for text in texts if text in left_out],
    }


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
