"""Write tables and pictures of the pages, README.md and the README.md of every folder, from notebooks/records.

    python pipelines/results.py            # after a record was added or a page got a new table
    python pipelines/results.py --check    # changes nothing

Rewrites what stands between the lines `<!-- table: NAME -->` and `<!-- end -->`, and pictures that were drawn from
other records. Exit code 0; with --check 1 where something differs from its records; 2 for an unknown table, a missing
record or a table that is not closed.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.reporting.result_pages import find_pages, render_page
from distill.reporting.result_pictures import PICTURES, is_up_to_date, render_picture
from distill.reporting.result_records import Records
from distill.utils.cli import Parser, run
from distill.utils.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="name what differs and exit 1, instead of writing it")
    return parser


def main() -> int:
    """Render every page, and write or compare it."""
    options = make_parser().parse_args()
    records = Records(ROOT / "notebooks" / "records")
    differing = 0
    for page in find_pages(ROOT):
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        rendered, tables = render_page(text, name, records)
        differing += len(tables)
        for table in tables:
            print(f"{name}: table {table} {'differs from its records' if options.check else 'written'}")
        if tables and not options.check:
            write_atomically(page, rendered)
    for name, picture in PICTURES.items():
        if not is_up_to_date(ROOT / name, picture, records) and (drawn := render_picture(picture, records)):
            differing += 1
            print(f"{name}: {'differs from its records' if options.check else 'drawn'}")
            if not options.check:
                write_atomically(ROOT / name, drawn)
    return 1 if options.check and differing else 0


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
