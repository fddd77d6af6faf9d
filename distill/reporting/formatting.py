"""Numbers with their units: the one place that decides how a number is written."""

from distill.evaluation.record_parts import Interval

MISSING = "n/a"
NOT_APPLICABLE = "-"
METRIC_LABELS = {
    "matthews_correlation": "MCC",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
    "f1": "F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
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
    is_share = name.startswith(("accuracy", "subset_accuracy")) or name.endswith("f1")
    return percent(value) if is_share else f"{value:.3f}"


def as_shown(name: str, value: float) -> float:
    """Round a metric, or a difference of two, to the digits that a reader sees: what differs below them is no more."""
    return float(metric_text(name, value).removesuffix(" %"))


def times_as_shown(value: float) -> float:
    """Round a speedup to the digits that :func:`speedup_interval` writes."""
    return round(value, 2)


def gain_interval(metric: str, gain: Interval | None) -> str:
    """Write a difference of scores: of shares in points, ``+13.2 [10.9, 15.5]``, of correlations to three digits."""
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return MISSING
    shares = metric_text(metric, 0.0).endswith("%")
    value, low, high = (100 * end if shares else end for end in (gain.value, gain.low, gain.high))
    digits = 1 if shares else 3
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def percent_interval(share: Interval | None) -> str:
    """Write a share as ``97.5 % [95.9, 99.1]``."""
    if share is None or share.value is None:
        return MISSING
    if share.low is None or share.high is None:
        return percent(share.value)
    return f"{percent(share.value)} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def speedup_interval(speedup: Interval) -> str:
    """Write a speedup as ``2.13× [2.06, 2.20]``."""
    if speedup.value is None:
        return MISSING
    if speedup.low is None or speedup.high is None:
        return f"{speedup.value:.2f}×"
    return f"{speedup.value:.2f}× [{speedup.low:.2f}, {speedup.high:.2f}]"


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
