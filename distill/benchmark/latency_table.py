"""How long the layers of a student take, by their width: what the speed of every shape is predicted from.

Time is about linear in the number of layers. So students of few layers are timed, with random weights, and the others
are predicted; whoever needs the speed of one of them for certain measures it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from distill.benchmark.conditions import Conditions
from distill.benchmark.latency import time_models
from distill.benchmark.timing import ratio_of_medians
from distill.config.shape_search import StudentShape
from distill.utils.errors import UserError
from distill.utils.files import read_object, write_atomically
from distill.utils.progress import progress_bar
from distill.utils.record_json import JsonObject, from_json, to_json

WIDTHS = (1, 5 / 6, 2 / 3, 1 / 2, 1 / 3, 1 / 4)
"""Shares of the heads, and with them of the hidden dimensions."""
MOST_UNITS, FEWEST_UNITS = 1, 1 / 4
"""Of the feed-forward units that a student of such a width has in proportion, the shares that are timed."""
UNITS = (3 / 4, 1 / 2)
"""Shares between these, for which time is about linear too."""
FEW_LAYERS = 4
"""From the times of one layer and of so many, those of other depths follow."""
BATCH_SIZE = 1
NOISY = 1.5
"""A time whose interval ends this many times as high as it begins was taken on a machine busy with other work."""
VERSION = 1
"""Part of the table's name: raised whenever the same settings would come to mean other times."""

Build = Callable[[StudentShape], nn.Module]
"""Makes a student of a shape, with random weights."""


@dataclass(frozen=True)
class LayerCost(JsonObject):
    """What layers of one kind take, in shares of the teacher's time for the same text."""

    shape: StudentShape
    """With one layer."""
    one: float
    """A student of one layer."""
    more: float
    """Every further layer."""

    def speedup(self, num_layers: int) -> float:
        """Predict how many times as fast as the teacher a student of so many such layers is."""
        return 1 / (self.one + (num_layers - 1) * self.more)

    def at(self, num_layers: int) -> StudentShape:
        """Return the shape of so many such layers."""
        return replace(self.shape, num_layers=num_layers)


@dataclass(frozen=True)
class LatencyTable(JsonObject):
    """The cost of every kind of layer, at one length."""

    num_layers: int
    """Of the deepest student."""
    costs: tuple[LayerCost, ...]
    noisy: bool = False
    """Whether one of the times has so wide an interval that the table is not worth keeping."""

    @property
    def shapes(self) -> list[tuple[StudentShape, float]]:
        """Every shape with its predicted speedup."""
        depths = range(1, self.num_layers + 1)
        return [(cost.at(depth), cost.speedup(depth)) for cost in self.costs for depth in depths]


def layer_kinds(hidden_size: int, intermediate_size: int, num_heads: int) -> list[StudentShape]:
    """Return the students of one layer, with all their feed-forward units, that are timed; the widest is first.

    Args:
        hidden_size, intermediate_size, num_heads: of the model that they are taken out of. A head stays as wide as it
            is, and the heads make the width.
    """
    kept = dict.fromkeys(max(1, round(share * num_heads)) for share in WIDTHS)
    return [
        StudentShape(1, heads * (hidden_size // num_heads), intermediate_size * heads // num_heads, heads)
        for heads in kept
    ]


def with_units(kind: StudentShape, share: float) -> StudentShape:
    """Return a shape with a share of its feed-forward units."""
    return replace(kind, intermediate_size=max(1, round(share * kind.intermediate_size)))


def between(most: LayerCost, fewest: LayerCost, share: float) -> LayerCost:
    """Return the cost of layers with a share of the units of ``most``, between two that were timed."""
    part = (share - FEWEST_UNITS) / (MOST_UNITS - FEWEST_UNITS)
    one, more = (part * a + (1 - part) * b for a, b in ((most.one, fewest.one), (most.more, fewest.more)))
    return LayerCost(with_units(most.shape, share), one, more)


def measure_table(
    teacher: nn.Module,
    build: Build,
    kinds: Sequence[StudentShape],
    num_layers: int,
    conditions: Conditions,
    length: int,
    seconds: float,
) -> LatencyTable:
    """Time one layer of every kind, and a few, with all units and with few, in the same rounds as the teacher.

    Args:
        teacher: what all times are shares of.
        build: makes the students.
        kinds: as `layer_kinds` returns them.
        num_layers: of the deepest student that is to be predicted.
        conditions: the same for all.
        length: in tokens, of one text.
        seconds: budget of each kind.

    Raises:
        PointError: a model runs out of memory, or takes far longer than the budget.
    """
    few = min(FEW_LAYERS, num_layers)
    noisy = False

    def cost(shape: StudentShape) -> LayerCost:
        nonlocal noisy
        models = {"teacher": teacher, "one": build(shape)}
        if few > 1:
            models["few"] = build(replace(shape, num_layers=few))
        times = time_models(models, conditions, BATCH_SIZE, length, seconds)
        share = {name: ratio_of_medians(each, times["teacher"]) for name, each in times.items()}
        noisy = noisy or any(high > NOISY * low for _, low, high in share.values())
        one = share["one"][0]
        more = (share.get("few", share["one"])[0] - one) / max(1, few - 1)
        return LayerCost(shape, one, max(0.0, more))

    costs = []
    for kind in progress_bar(kinds, name="speed of layers", unit="width"):
        most, fewest = (cost(with_units(kind, share)) for share in (MOST_UNITS, FEWEST_UNITS))
        costs += [most, *(between(most, fewest, share) for share in UNITS), fewest]
    return LatencyTable(num_layers, tuple(costs), noisy)


def measure_speedup(
    teacher: nn.Module, student: nn.Module, conditions: Conditions, length: int, seconds: float
) -> tuple[float, float, float]:
    """Return how many times as fast as the teacher a student is at one text, and its interval.

    Raises:
        PointError: it cannot be measured.
    """
    times = time_models({"teacher": teacher, "student": student}, conditions, BATCH_SIZE, length, seconds)
    return ratio_of_medians(times["teacher"], times["student"])


def kept_table(
    folder: Path | None, about: Mapping[str, Any], measure: Callable[[], LatencyTable], *, only_look: bool = False
) -> LatencyTable:
    """Return the table that an earlier run left in a folder, or measure it and, unless it is noisy, leave it there.

    Args:
        folder: shared between runs; None: it is measured, and kept nowhere.
        about: all that times depend on: machine, teacher, students, length.
        measure: makes the table.
        only_look: whether nothing may be written.

    Raises:
        UserError: the file is torn, or holds no such table.
    """
    if folder is None:
        return measure()
    named = json.dumps({"version": VERSION, **about}, sort_keys=True)
    path = folder / f"{hashlib.sha256(named.encode()).hexdigest()[:20]}.json"
    if path.exists():
        return read_table(path)
    table = measure()
    if not (only_look or table.noisy):
        write_atomically(path, json.dumps(to_json(table), indent=1))
    return table


def read_table(path: Path) -> LatencyTable:
    """Read a table of latencies.

    Raises:
        UserError: the file is torn, or holds no such table.
    """
    way_out = "remove it to have it measured again"
    found = read_object(path, way_out)
    try:
        table = from_json(LatencyTable, found, str(path))
    except UserError as error:
        raise UserError(f"{path} is no table of latencies; {way_out}") from error
    if not all(cost.one > 0 and cost.more >= 0 for cost in table.costs) or not table.shapes:
        raise UserError(f"{path} is no table of latencies; {way_out}")
    return table
