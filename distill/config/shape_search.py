"""The search for a student's shape, as its run and the record keep it, and how its answer replaces the question.

With ``student.target_speedup`` a run begins without a shape. What is found is written down in its folder; from then on
the run is one whose configuration gives that shape, under whichever of the two commands it is started.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from distill.config.require import require
from distill.config.schema import IMPORTANCE, Config
from distill.config.student_schema import StudentSettings
from distill.utils.errors import UserError
from distill.utils.files import read_object
from distill.utils.record_json import JsonObject, from_json

Kept = TypeVar("Kept", bound=JsonObject)
SEARCH = "search"
"""Folder below ``checkpoints/``."""


@dataclass(frozen=True)
class StudentShape(JsonObject):
    """Layers that are all alike, and how many."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int

    @property
    def name(self) -> str:
        """What its short run is called."""
        return f"{self.num_layers}x{self.hidden_size}x{self.intermediate_size}"

    @property
    def in_words(self) -> str:
        """What it is called in a sentence."""
        layers = "1 layer" if self.num_layers == 1 else f"{self.num_layers} layers"
        return f"{layers} of width {self.hidden_size} with {self.intermediate_size} feed-forward units"


@dataclass(frozen=True)
class TriedShape(JsonObject):
    """A shape that was timed against the teacher and, where it is fast enough, trained for a short time."""

    shape: StudentShape
    speedup: float
    """Times as fast as the teacher; ``low`` and ``high`` are its interval."""
    low: float
    high: float
    seconds: float | None = None
    """Of the short run; None, as what follows, where there was none."""
    divergence: float | None = None
    """Of its predictions from the teacher's on held-out train: Kullback-Leibler, in nats, or mean squared error."""
    agreement: float | None = None
    """Share of held-out train that both answer alike; of classes alone."""

    @property
    def speed_in_words(self) -> str:
        """What was measured, in a sentence."""
        return f"{self.speedup:.2f} times as fast as the teacher [{self.low:.2f}, {self.high:.2f}]"

    def is_open(self, target: float) -> bool:
        """Tell whether the interval of its speed leaves open that it is as fast as that."""
        return self.low < target < self.high


@dataclass(frozen=True)
class ShapeSearch(JsonObject):
    """What was asked for, what was tried, and what was taken."""

    target_speedup: float
    target_length: int | None
    """As it was configured."""
    length: int
    """At which speed was measured, in tokens, of one text."""
    device: str
    dtype: str
    predicted: int
    """Shapes whose speed was predicted from the time of single layers."""
    promising: int
    """Of these, the shapes that were predicted to be fast enough."""
    tried: tuple[TriedShape, ...] = ()
    chosen: StudentShape | None = None

    @property
    def finalists(self) -> tuple[TriedShape, ...]:
        """Those that are fast enough."""
        return tuple(each for each in self.tried if each.speedup >= self.target_speedup)

    def answers(self, config: Config) -> bool:
        """Tell whether this is the search that a configuration asks for, with speed measured in the same precision."""
        asked = config.student.target_speedup, config.student.target_length, config.comparison.dtype
        return asked == (self.target_speedup, self.target_length, self.dtype)


def search_file(run_dir: Path | str) -> Path:
    """Return where a run keeps its search."""
    return Path(run_dir) / "checkpoints" / SEARCH / "search.json"


def read_search(run_dir: Path | str) -> ShapeSearch | None:
    """Return what a run has written down of its search, None where it has none.

    Raises:
        UserError: it is torn.
    """
    return read_kept(ShapeSearch, search_file(run_dir), "search")


def read_kept(kind: type[Kept], path: Path, what: str) -> Kept | None:
    """Return what a run has written down of something that it had to find, None where it has none.

    Args:
        kind: of the object in the file.
        what: the verb of what is done again without the file.

    Raises:
        UserError: it is torn.
    """
    if not path.exists():
        return None
    way_out = f"remove {path.parent} to {what} again"
    found = read_object(path, way_out)
    try:
        return from_json(kind, found, str(path))
    except UserError as error:
        raise UserError(f"{error}; {way_out}") from error


def with_shape(config: Config, shape: StudentShape) -> Config:
    """Return the configuration of a student of this shape, for which nothing is searched."""
    sizes = {name: getattr(shape, name) for name in ("num_layers", "hidden_size", "intermediate_size", "num_heads")}
    return replace(config, student=replace(config.student, target_speedup=None, target_length=None, **sizes))


def with_found_shape(config: Config, run_dir: Path | str) -> Config:
    """Return the configuration with the shape that its run has found; as it is where none was asked for, or found."""
    search = None if config.student.target_speedup is None else read_search(run_dir)
    if search is None or search.chosen is None or not search.answers(config):
        return config
    return with_shape(config, search.chosen)


def check_target(student: StudentSettings, longest: int) -> None:
    """Refuse a speed that cannot be asked for, and what holds for one shape alone, beside it.

    Args:
        student: what is asked for.
        longest: text that the models are made for, in tokens.
    """
    target, length = student.target_speedup, student.target_length
    if target is None:
        way_out = "it is the length that student.target_speedup is meant for; give that too, or null"
        require(length is None, "student.target_length", length, way_out)
        return
    require(target > 1, "student.target_speedup", target, "give a number above 1, such as 4, or null")
    require(length is None or length > 0, "student.target_length", length, "give a number of tokens, or null")
    advice = f"texts are cut at data.max_length = {longest}; give no more than that, or raise it"
    require(length is None or length <= longest, "student.target_length", length, advice)
    for name in ("hidden_size", "intermediate_size", "num_heads"):
        size = getattr(student, name)
        way_out = "student.target_speedup chooses the shape; leave one of the two out"
        require(size is None, f"student.{name}", size, way_out)
    tries = "student.target_speedup tries several depths"
    fits = isinstance(student.layer_map, str) and student.layer_map != IMPORTANCE
    require(fits, "student.layer_map", student.layer_map, f"{tries}; give even, first or last")
    require(set(student.softmax_layers) <= {-1}, "student.softmax_layers", student.softmax_layers, f"{tries}; give -1")
    shared = not isinstance(student.num_features, list)
    require(shared, "student.num_features", student.num_features, f"{tries}; give one number")
    frozen = student.attention == "lstm"
    advice = "it keeps its layers as they are; leave student.target_speedup out"
    require(not frozen, "student.attention", "lstm", advice)
