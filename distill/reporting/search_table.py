"""The shapes that were tried for a student of a given speed, as a table."""

from distill.config.shape_search import ShapeSearch, TriedShape
from distill.evaluation.record_parts import Interval
from distill.reporting.formatting import MISSING, duration, percent, speedup_interval
from distill.reporting.tables import Table


def search_cells(search: ShapeSearch | None) -> Table:
    """One row per shape that was timed: its speed and, after a short run, how near to the teacher it was."""
    headers = ("layers", "width", "feed-forward", "heads", "speedup [95 %]", "divergence", "agrees", "time", "")
    if search is None:
        return Table("Shapes", headers, ())
    notes = [
        f"of {search.predicted} shapes {search.promising} were predicted to be fast enough, from the times of single "
        f"layers (one text, {search.device} {search.dtype})",
    ]
    if any(each.divergence is not None for each in search.tried):
        notes.append("divergence: of the predictions from the teacher's, after a short run, on held-out train")
    title = f"Shapes tried for {search.target_speedup:g}× the teacher's speed at {search.length:,} tokens"
    return Table(title, headers, tuple(_row(search, each) for each in search.tried), tuple(notes))


def _row(search: ShapeSearch, tried: TriedShape) -> tuple[str, ...]:
    shape, speed = tried.shape, Interval(tried.speedup, tried.low, tried.high)
    end = "taken" if shape == search.chosen else "" if tried in search.finalists else "too slow"
    return (
        *map(str, (shape.num_layers, shape.hidden_size, shape.intermediate_size, shape.num_heads)),
        speedup_interval(speed),
        MISSING if tried.divergence is None else f"{tried.divergence:.3f}",
        MISSING if tried.agreement is None else percent(tried.agreement),
        MISSING if tried.seconds is None else duration(tried.seconds),
        end,
    )
