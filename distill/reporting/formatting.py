"""Numbers with their units: the one place that decides how a number is written."""

from typing import Any

MISSING = "n/a"
NOT_APPLICABLE = "-"
METRIC_LABELS = {
    "matthews_correlation": "MCC",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
    "f1": "F1",
    "macro_f1": "macro F1",
    "accuracy_mismatched": "accuracy (mismatched)",
}


def metric_label(name: str) -> str:
    """Name a metric as people write it."""
    return METRIC_LABELS.get(name, name.replace("_", " "))


def percent(value: float | None) -> str:
    """Write a fraction as a percentage with one decimal; None is ``n/a``."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def variance_explained(value: float | None) -> str:
    """Write the share of a variance that is explained; below 0 how far below says nothing."""
    return "worse than the mean" if value is not None and value < 0 else percent(value)


def metric_text(name: str, value: float | None) -> str:
    """Write a metric: shares as a percentage with one decimal, correlations (MCC among them) with three."""
    if value is None:
        return MISSING
    return percent(value) if name.startswith("accuracy") or name.endswith("f1") else f"{value:.3f}"


def gain_interval(metric: str, gain: dict[str, float] | None) -> str:
    """Write a difference of scores: of shares in points, ``+13.2 [10.9, 15.5]``, of correlations to three digits."""
    if gain is None:
        return MISSING
    shares = metric_text(metric, 0.0).endswith("%")
    value, low, high = (100 * gain[end] if shares else gain[end] for end in ("value", "low", "high"))
    digits = 1 if shares else 3
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def percent_interval(entry: dict[str, Any] | None) -> str:
    """Write ``{value, low, high}`` as ``97.5 % [95.9, 99.1]``."""
    if entry is None or entry.get("value") is None:
        return MISSING
    if entry.get("low") is None or entry.get("high") is None:
        return percent(entry["value"])
    return f"{percent(entry['value'])} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"


def speedup_interval(point: dict[str, Any]) -> str:
    """Write the speedup of one measured point as ``2.13× [2.06, 2.20]``."""
    if point.get("speedup") is None:
        return MISSING
    if point.get("low") is None or point.get("high") is None:
        return f"{point['speedup']:.2f}×"
    return f"{point['speedup']:.2f}× [{point['low']:.2f}, {point['high']:.2f}]"


def quantity(value: float | None, unit: str = "") -> str:
    """Write a large count with a thousands, millions or billions prefix and three digits."""
    if value is None:
        return MISSING
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


def milliseconds(value: float | None) -> str:
    """Write a time in milliseconds with three digits."""
    if value is None:
        return MISSING
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} ms"


def megabytes(value: float | None) -> str:
    """Write a memory size in MB (10⁶ bytes), small ones with a decimal."""
    return MISSING if value is None else f"{value:,.{0 if value >= 10 else 1}f} MB"


def duration(seconds: float | None) -> str:
    """Write a wall-clock time as ``12 s``, ``6 min 52 s`` or ``2 h 05 min``."""
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
