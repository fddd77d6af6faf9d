"""The table of the altered copies that were tried."""

from dataclasses import replace

from distill.config.copies_choice import CopiesChoice, TriedCopies
from distill.reporting.copies_table import copies_cells

TRIED = (
    TriedCopies("none", 0.08, 0.92, 0.99, 12.0),
    TriedCopies("mix", 0.05, 0.94, 0.42, 13.0),
    TriedCopies("cut", 0.09, 0.91, 0.63, 13.0),
)
CHOICE = CopiesChoice(3, ["mix", "cut"], "accuracy", ["depth", "depth_logits"], 400, 100, TRIED, is_finished=True)


def test_every_kind_has_a_row_and_what_is_taken_a_mark():
    table = copies_cells(CHOICE)
    assert [row[:4] for row in table.rows] == [
        ("none", "0.0800", "92.0 %", "99.0 %"),
        ("mix *", "0.0500", "94.0 %", "42.0 %"),
        ("cut", "0.0900", "91.0 %", "63.0 %"),
    ]
    assert "taken: best first: mix" in table.notes
    assert "in stages like depth and depth_logits," in table.notes[0]


def test_where_no_kind_helps_the_table_says_so():
    worse = replace(CHOICE, tried=(TRIED[0], TRIED[2]))
    assert any(note.startswith("taken: none") for note in copies_cells(worse).notes)


def test_what_there_is_not_has_no_figure():
    table = copies_cells(
        replace(CHOICE, tried=(replace(TRIED[0], divergence=None, same_answers=None, agreement=None),))
    )
    assert table.rows[0][1:4] == ("n/a", "n/a", "n/a")
    assert copies_cells(None).rows == ()
