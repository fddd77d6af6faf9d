"""The table of the shapes that were tried."""

from dataclasses import replace

from distill.config.shape_search import ShapeSearch, StudentShape, TriedShape
from distill.reporting.search_table import search_cells
from distill.reporting.tables import without_gaps

SHAPE = StudentShape(4, 192, 768, 6)
TRIED = (
    TriedShape(replace(SHAPE, num_layers=5), 3.9, 3.8, 4.1),
    TriedShape(SHAPE, 4.2, 4.1, 4.3, 12.0, 0.1234, 0.925),
    TriedShape(replace(SHAPE, num_layers=2), 5.0, 4.9, 5.1, 8.0, 0.2, 0.9),
)
SEARCH = ShapeSearch(4.0, None, 32, "cpu", "float32", 144, 95, TRIED, SHAPE)


def test_every_shape_has_a_row_and_its_end():
    table = search_cells(SEARCH)
    assert table.title == "Shapes tried for 4× the teacher's speed at 32 tokens"
    assert [row[0] for row in table.rows] == ["5", "4", "2"]
    assert [row[-1] for row in table.rows] == ["too slow", "taken", ""]
    assert table.rows[1][4:7] == ("4.20× [4.10, 4.30]", "0.123", "92.5 %")
    assert "of 144 shapes 95 were predicted" in table.notes[0]


def test_before_the_short_runs_there_are_no_scores():
    begun = replace(
        SEARCH,
        chosen=None,
        tried=tuple(replace(each, divergence=None, agreement=None, seconds=None) for each in TRIED),
    )
    assert without_gaps(search_cells(begun)).headers == (
        "layers",
        "width",
        "feed-forward",
        "heads",
        "speedup [95 %]",
        "",
    )


def test_without_a_search_there_is_no_table():
    assert search_cells(None).rows == ()
