"""The mechanisms that were tried in every attention block, as a table."""

from distill.config.attention_fit import AttentionFit, TriedAttention
from distill.evaluation.record_parts import Interval
from distill.reporting.formatting import MISSING, duration, speedup_interval
from distill.reporting.tables import Table


def fit_cells(fit: AttentionFit | None) -> Table:
    """One row per mechanism: what of each block's output it explains, with what was taken marked, and its speed."""
    if fit is None:
        return Table("Attention per layer", ("attention",), ())
    layers = range(max(len(each.fidelity or ()) for each in fit.tried))
    headers = ("attention", *(f"layer {layer}" for layer in layers), "speed", "training")
    rows = [
        (
            each.attention,
            *(_share(fit, each, layer) for layer in layers),
            MISSING if each.speedup is None else speedup_interval(Interval(each.speedup, each.low, each.high)),
            duration(each.seconds),
        )
        for each in fit.tried
    ]
    notes = [
        "share of the variance of a block's output that the mechanism explains, each block on the teacher's own "
        f"activations, after a short run, on held-out train; *: taken; {MISSING}: its loss was not finite",
        *(f"{each.attention}: its speed could not be measured: {each.reason}" for each in fit.tried if each.reason),
        "speed of a student with the mechanism in every layer, times that of the same student with softmax, on one "
        f"text of {fit.length:,} tokens, on {fit.device} in {fit.dtype}",
        *(f"layer {layer}: {fit.why(layer)}" for layer in layers),
    ]
    title = f"Attention per layer: the fastest that explains {fit.fidelity:g}"
    return Table(title, headers, tuple(rows), tuple(notes))


def _share(fit: AttentionFit, tried: TriedAttention, layer: int) -> str:
    taken = fit.chosen is not None and fit.chosen[layer] == tried.attention
    return MISSING if tried.fidelity is None else f"{tried.fidelity[layer]:.3f}{' *' if taken else ''}"
