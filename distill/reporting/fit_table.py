"""The mechanisms that were tried in every attention block, as a table."""

from distill.config.attention_fit import AttentionFit, TriedAttention
from distill.reporting.formatting import MISSING, duration
from distill.reporting.tables import Table


def fit_cells(fit: AttentionFit | None) -> Table:
    """One row per mechanism: what of each block's output it explains, with what was taken marked, and its cost."""
    if fit is None:
        return Table("Attention per layer", ("attention",), ())
    layers = range(len(fit.tried[0].operations))
    headers = ("attention", *(f"layer {layer}" for layer in layers), "operations", "time")
    rows = [
        (
            each.attention,
            *(_share(fit, each, layer) for layer in layers),
            f"{sum(each.operations) / 1e6:,.1f} M",
            duration(each.seconds),
        )
        for each in fit.tried
    ]
    notes = [
        "share of the variance of a block's output that the mechanism explains, each block on the teacher's own "
        f"activations, after a short run, on held-out train; *: taken; {MISSING}: its loss was not finite",
        f"operations of all blocks on one text of {fit.length:,} tokens",
        *(f"layer {layer}: {fit.why(layer)}" for layer in layers),
    ]
    title = f"Attention per layer: the cheapest that explains {fit.fidelity:g}"
    return Table(title, headers, tuple(rows), tuple(notes))


def _share(fit: AttentionFit, tried: TriedAttention, layer: int) -> str:
    taken = fit.chosen is not None and fit.chosen[layer] == tried.attention
    return MISSING if tried.fidelity is None else f"{tried.fidelity[layer]:.3f}{' *' if taken else ''}"
