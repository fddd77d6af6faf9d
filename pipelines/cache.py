"""List what a shared cache of teachers' outputs holds, and remove it.

    python pipelines/cache.py --dir runs/teacher_outputs                     (size, last use and what it belongs to)
    python pipelines/cache.py --dir runs/teacher_outputs --older-than 30     (removes what no run used for 30 days)
    python pipelines/cache.py --dir runs/teacher_outputs --clear             (removes all that is listed)

What a living run uses stays. What is removed is computed again by the next run that needs it: outputs in one pass of
the teacher, a softmax student in as long as its stages took, tokens of texts in minutes. Nothing else in the folder is
touched, nor the few kB in its folder latency: remove that to have the speed of layers measured again.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.reporting.tables import Table, text_table
from distill.utils.cli import Parser, run
from distill.utils.errors import UserError
from teachers.cache_folder import Entry, find_entries, remove_entry, remove_leftovers

DAY = 24 * 60 * 60


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dir", required=True, metavar="DIR", help="the cache.dir of the runs")
    removed = parser.add_mutually_exclusive_group()
    removed.add_argument("--clear", action="store_true", help="remove all that is listed and no living run uses")
    removed.add_argument("--older-than", type=days, metavar="DAYS", help="remove what was not used for so many days")
    return parser.parse_args(arguments)


def days(text: str) -> float:
    """Read a number of days, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days, 0 or more")
    return number


def main() -> None:
    """List the entries, or remove those that were asked for and say what went and what stayed."""
    options = parse()
    root = Path(options.dir)
    if not root.is_dir():
        raise UserError(f"--dir {root} is no folder; give the cache.dir of a run")
    entries = find_entries(root)
    if not entries:
        print(f"{root} holds no outputs of teachers")
    elif options.clear or options.older_than is not None:
        clear(entries, options.older_than)
    else:
        print(text_table(listing(entries)))
    if options.clear:
        remove_leftovers(root)


def listing(entries: list[Entry]) -> Table:
    """Return a row per entry, the least recently used first."""
    rows = []
    for entry in entries:
        about = entry.about
        texts = f"{about['texts']:,} texts" if isinstance(about.get("texts"), int) else "unknown"
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        made_for = str(about.get("made_for") or "unknown")
        rows.append(
            (entry.path.name, entry.kind, gigabytes(entry), used, texts, str(about.get("model", "")), made_for)
        )
    total = sum(entry.bytes for entry in entries)
    headers = ("entry", "kind", "size", "last used", "of", "model", "first made for")
    return Table(f"{total / 1e9:.2f} GB in {len(entries)} entries", headers, tuple(rows))


def clear(entries: list[Entry], older_than: float | None) -> None:
    """Remove entries, of ``older_than`` days without use if that is not None, and say what went and what stayed."""
    limit = time.time() - DAY * (older_than or 0)
    wanted = [entry for entry in entries if older_than is None or entry.last_used <= limit]
    gone = [entry for entry in wanted if remove_entry(entry)]
    print(f"removed: {len(gone)} entries, {sum(entry.bytes for entry in gone) / 1e9:.2f} GB")
    for entry in wanted:
        if entry not in gone:
            print(f"in use, left: {entry.path.name} ({gigabytes(entry)})")


def gigabytes(entry: Entry) -> str:
    """Return the size of an entry in words."""
    return f"{entry.bytes / 1e9:.2f} GB" if entry.bytes >= 1e8 else f"{entry.bytes / 1e6:.2f} MB"


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
