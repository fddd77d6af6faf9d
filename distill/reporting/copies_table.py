"""The altered copies that were tried, as a table."""

from collections.abc import Sequence

from distill.config.copies_choice import NONE, CopiesChoice
from distill.reporting.formatting import MISSING, duration, metric_text, percent
from distill.reporting.tables import Table


def in_words(names: Sequence[str]) -> str:
    """Return names as a sentence has them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def copies_cells(choice: CopiesChoice | None) -> Table:
    """One row per kind: how near to its teacher a student came with it, and whether its labels can be known."""
    headers = ("copies", "divergence from the teacher", "same answers", "teacher agrees with the labels", "time")
    if choice is None:
        return Table("Altered copies", headers, ())
    rows = [
        (
            f"{each.kind}{' *' if each.kind in choice.chosen else ''}",
            MISSING if each.divergence is None else f"{each.divergence:.4f}",
            MISSING if each.same_answers is None else percent(each.same_answers),
            MISSING if each.agreement is None else metric_text(choice.main_metric, each.agreement),
            duration(each.seconds),
        )
        for each in choice.tried
    ]
    taken = f"best first: {', '.join(choice.chosen)}" if choice.chosen else "none, and the texts themselves more often"
    notes = [
        f"{choice.copies} copies of every text, of one kind, read for as many steps as the texts alone ({NONE}), in "
        f"stages like {in_words(choice.stages)}, compared with the teacher on held-out train; *: better than none",
        f"labels: {choice.main_metric} of the teacher's answers to copies, by the labels of what they were made of",
        f"taken: {taken}",
    ]
    return Table("Altered copies", headers, tuple(rows), tuple(notes))
