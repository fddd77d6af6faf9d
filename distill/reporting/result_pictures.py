"""The pictures of the pages, each drawn from records and marked with what they held.

A PNG of one record differs by the version of matplotlib; so a picture is up to date where it carries the checksum of
the records that it was drawn from.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from distill.reporting.plot_style import STYLE, log_counts, png
from distill.reporting.result_records import Records
from distill.reporting.result_text import LENGTHS, MECHANISMS

MARK = "Records"
"""Key of the checksum in a PNG's text."""
SEVEN_COLORS = ("#4a5568", "#1f5fa8", "#3b8c5a", "#7fb3d5", "#8e44ad", "#e0a060", "#c4500c")
COLORS = dict(zip(MECHANISMS, SEVEN_COLORS, strict=True))


@dataclass(frozen=True)
class Picture:
    """A picture of the pages."""

    records: tuple[str, ...]
    """Names of what it is drawn from, below notebooks/records."""
    draw: Callable[[Records], Figure | None]
    """Returns None where the records have nothing to draw."""


def language_models(records: Records, against: str) -> Figure | None:
    """Draw the training loss of language models, a row for every depth and a column for every length.

    None where there are no runs, or none of a depth whose steps were timed.

    Args:
        against: tokens, or time: the steps taken so far times what a step takes alone.
    """
    runs, steps = records.find("language_models/summary"), records.find("language_models/steps")
    points = steps.get("points", ())
    milliseconds = {(each["model"], each["layers"], each["length"]): each["milliseconds"] for each in points}
    depths = sorted({run["layers"] for run in runs.values()})
    if against == "time":
        depths = [layers for layers in depths if any(timed == layers for _, timed, _ in milliseconds)]
    if not depths:
        return None
    figure = Figure(figsize=(4.2 * len(LENGTHS), 3.2 * len(depths) + 0.5), layout="constrained")
    panels = figure.subplots(len(depths), len(LENGTHS), squeeze=False, sharey=True)
    drawn: dict[str, Any] = {}
    for row, layers in zip(panels, depths, strict=True):
        for axes, length in zip(row, LENGTHS, strict=True):
            for run in runs.values():
                step = milliseconds.get((run["attention"], layers, length))
                if (run["layers"], run["max_length"]) != (layers, length) or (against == "time" and step is None):
                    continue
                tokens, loss = run["curve"]["tokens"], run["curve"]["loss"]
                x = tokens if against == "tokens" else [each / steps["batch_tokens"] * step / 1000 for each in tokens]
                (line,) = axes.plot(x, loss, color=COLORS[run["attention"]], lw=1.4)
                drawn.setdefault(run["attention"], line)
            label = "tokens seen" if against == "tokens" else "seconds of steps"
            axes.set(xscale="log", title=f"{layers} layers, {length:,} tokens", xlabel=label)
            log_counts(axes.xaxis)
        row[0].set_ylabel("training loss, nats a byte")
    shown = [name for name in COLORS if name in drawn]
    figure.legend([drawn[name] for name in shown], shown, loc="outside lower center", ncols=len(COLORS))
    return figure


OF_TEXT = ("language_models/summary", "language_models/steps")
PICTURES: Mapping[str, Picture] = {
    "notebooks/language_models_tokens.png": Picture(OF_TEXT, lambda records: language_models(records, "tokens")),
    "notebooks/language_models_time.png": Picture(OF_TEXT, lambda records: language_models(records, "time")),
}
"""Path below the repository's root to the picture there."""


def render_picture(picture: Picture, records: Records) -> bytes | None:
    """Return a picture as PNG, with the mark of its records; None where they have nothing to draw."""
    with rc_context(STYLE):
        figure = picture.draw(records)
        if figure is None:
            return None
        content = png(figure)
    image, text = Image.open(io.BytesIO(content)), PngImagePlugin.PngInfo()
    text.add_text(MARK, checksum(picture, records))
    marked = io.BytesIO()
    image.save(marked, format="PNG", pnginfo=text, optimize=True)
    return marked.getvalue()


def is_up_to_date(path: Path, picture: Picture, records: Records) -> bool:
    """Tell whether a file is the picture of what the records hold now."""
    try:
        with Image.open(path) as image:
            found: Any = image.info.get(MARK)
    except (OSError, UnidentifiedImageError):
        return False
    return bool(found == checksum(picture, records))


def checksum(picture: Picture, records: Records) -> str:
    """Return the checksum of all that a picture is drawn from."""
    digest = hashlib.sha256()
    for name in picture.records:
        digest.update(repr(records.find(name)).encode())
    return digest.hexdigest()
