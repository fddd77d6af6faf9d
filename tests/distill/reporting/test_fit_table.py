"""The table of the mechanisms that were tried in every block."""

from dataclasses import replace

from distill.config.attention_fit import AttentionFit, TriedAttention
from distill.reporting.fit_table import fit_cells

TRIED = (
    TriedAttention("linear", [0.95, 0.5], 12.0, 1.5, 1.4, 1.61),
    TriedAttention("abc", [0.97, 0.925], 14.0, reason="out of memory"),
)
FIT = AttentionFit(0.9, ["linear", "abc"], 128, "cpu", "float32", [], TRIED, ["linear", "abc"])


def test_every_mechanism_has_a_row_and_what_is_taken_a_mark():
    table = fit_cells(FIT)
    assert table.headers == ("attention", "layer 0", "layer 1", "speed", "training")
    assert table.rows[0][:4] == ("linear", "0.950 *", "0.500", "1.50× [1.40, 1.61]")
    assert table.rows[1][:4] == ("abc", "0.970", "0.925 *", "n/a")
    assert table.title == "Attention per layer: the fastest that explains 0.9"
    assert "abc: its speed could not be measured: out of memory" in table.notes
    assert any(note.startswith("layer 1: abc, the only one that reaches 0.9") for note in table.notes)


def test_before_the_choice_there_is_no_mark():
    assert not any("*" in cell for row in fit_cells(replace(FIT, chosen=None)).rows for cell in row)


def test_without_a_fit_there_is_no_table():
    assert fit_cells(None).rows == ()


def test_what_could_not_be_trained_has_no_share():
    table = fit_cells(replace(FIT, tried=(replace(TRIED[0], fidelity=None), TRIED[1]), chosen=["abc", "abc"]))
    assert table.rows[0][1:3] == ("n/a", "n/a")
