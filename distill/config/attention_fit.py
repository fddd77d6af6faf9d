"""The fit of attention mechanisms to single blocks, as a run keeps it, and how its answer replaces the question.

With ``student.attention: fit`` a run begins without mechanisms. What is found is written down in its folder; from then
on the run is one whose configuration names a mechanism for every layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.config.require import require, require_choice
from distill.config.schema import Config
from distill.config.shape_search import read_kept
from distill.config.student_schema import FIT, StudentSettings
from distill.config.student_start import is_student
from distill.utils.record_json import JsonObject

ATTENTION_FIT = "attention_fit"
"""Folder below ``checkpoints/``."""


@dataclass(frozen=True)
class TriedAttention(JsonObject):
    """A mechanism that was put into every block and trained there for a short time."""

    attention: str
    fidelity: list[float] | None
    """Of every student layer: share of the variance of its block's output that it explains, on held-out train; None
    where its loss was not finite."""
    seconds: float
    """Of the short run."""
    speedup: float | None = None
    """Of a student with this mechanism in every layer, over one with softmax, with its interval; None where it could
    not be measured."""
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    """Why it could not be measured."""


@dataclass(frozen=True)
class AttentionFit(JsonObject):
    """What was asked for, what was tried, and what was taken."""

    fidelity: float
    candidates: list[str]
    """Both as they were configured."""
    length: int
    """At which speed is measured, in tokens, of one text."""
    device: str
    dtype: str
    kept: list[int]
    """Layers that keep softmax attention whatever is found."""
    tried: tuple[TriedAttention, ...] = ()
    chosen: list[str] | None = None
    """A mechanism for every layer."""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Those of ``attention_options`` that a chosen mechanism has."""

    def answers(self, config: Config) -> bool:
        """Tell whether this is the fit that a configuration asks for."""
        asked = config.student.fit_fidelity, config.student.fit_attentions
        return config.student.attention == FIT and asked == (self.fidelity, self.candidates)

    def goes_on(self, device: str, dtype: str) -> bool:
        """Tell whether what is known still counts: speeds of two devices or precisions cannot be compared."""
        return self.chosen is not None or (device, dtype) == (self.device, self.dtype)

    def best(self, layer: int) -> TriedAttention:
        """Return the fastest that is good enough for a layer; where none is good enough, the best.

        Of those whose speed cannot be told from that of the fastest, the one that explains most: times differ from run
        to run, and must not decide where they say nothing.
        """
        as_fast = self._as_fast(layer)
        if as_fast:
            return max(as_fast, key=lambda each: self._share(each, layer))
        trained = [each for each in self.tried if each.fidelity is not None]
        return max(trained, key=lambda each: (self._share(each, layer), each.speedup or 0.0))

    def _as_fast(self, layer: int) -> list[TriedAttention]:
        """Return those that are good enough for a layer and not slower than another one for certain."""
        able = self._able(layer)
        bar = max((each.low or 0.0 for each in able), default=0.0)
        return [each for each in able if (each.high or 0.0) >= bar]

    def _able(self, layer: int) -> list[TriedAttention]:
        """Return what is good enough for a layer."""
        return [each for each in self.tried if self._share(each, layer) >= self.fidelity]

    def _share(self, tried: TriedAttention, layer: int) -> float:
        """Return what a mechanism explains of a layer; nothing where it could not be trained."""
        return 0.0 if tried.fidelity is None else tried.fidelity[layer]

    def why(self, layer: int) -> str:
        """Say why a layer gets its mechanism."""
        if layer in self.kept:
            return "softmax, as student.softmax_layers says"
        best, able, as_fast = self.best(layer), self._able(layer), self._as_fast(layer)
        share, reach = f"{self._share(best, layer):.3f}", f"{len(able)} that reach {self.fidelity:g}"
        if not able:
            return f"{best.attention}, which explains most ({share}); none reaches {self.fidelity:g}"
        if len(able) == 1:
            return f"{best.attention}, the only one that reaches {self.fidelity:g} ({share})"
        if len(as_fast) == 1:
            return f"{best.attention}, the fastest of {reach} ({share})"
        if all(each.speedup is None for each in able):
            of = f"{reach}, none of which could be timed"
        elif as_fast == able:
            of = f"{reach}, whose speeds cannot be told apart"
        else:
            of = f"the {len(as_fast)} fastest of {reach}"
        return f"{best.attention}, which explains most ({share}) of {of}"


def fit_file(run_dir: Path | str) -> Path:
    """Return where a run keeps its fit."""
    return Path(run_dir) / "checkpoints" / ATTENTION_FIT / "fit.json"


def read_fit(run_dir: Path | str) -> AttentionFit | None:
    """Return what a run has written down of its fit, None where it has none.

    Raises:
        UserError: it is torn.
    """
    return read_kept(AttentionFit, fit_file(run_dir), "fit")


def with_attention(config: Config, attention: str | list[str], options: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration of a student with these mechanisms, and with these options where they are given."""
    if isinstance(attention, list) and len(set(attention)) == 1:
        attention = attention[0]
    student = replace(config.student, attention=attention)
    return replace(config, student=student if options is None else replace(student, attention_options=dict(options)))


def with_found_attention(config: Config, run_dir: Path | str) -> Config:
    """Return the configuration with the mechanisms that its run has found, where it asked for them."""
    fit = read_fit(run_dir) if config.student.attention == FIT else None
    if fit is None or not fit.chosen or not fit.answers(config):
        return config
    return with_attention(config, fit.chosen, fit.options)


def mechanism_of_student(student: StudentSettings, attentions: Any) -> Any:
    """Return what answers for the student's mechanism, for those of its layers, or for those that are tried.

    Args:
        attentions: what a student may have (``students.STUDENTS``).
    """
    if student.attention == FIT:
        return attentions.of(student.fit_attentions)
    if isinstance(student.attention, str):
        return attentions.of(student.attention)
    kept = {layer % student.num_layers for layer in student.softmax_layers}
    return attentions.of(["softmax" if layer in kept else name for layer, name in enumerate(student.attention)])


def check_attention(student: StudentSettings, attentions: Mapping[str, Any]) -> None:
    """Refuse mechanisms that there are not, and what cannot be fitted.

    Raises:
        UserError: with the key and the way out.
    """
    attention = student.attention
    if attention == FIT:
        _check_fit(student, attentions)
    elif isinstance(attention, str):
        require_choice("student.attention", attention, [*attentions, FIT])
    else:
        mixable = [name for name, each in attentions.items() if each.trains_layers]
        for name in attention:
            require_choice("student.attention", name, mixable)
        right = len(attention) == student.num_layers
        require(right, "student.attention", attention, f"give student.num_layers = {student.num_layers} names, or one")
        one = student.target_speedup is None
        require(one, "student.attention", attention, "student.target_speedup tries several depths; give one name")


def _check_fit(student: StudentSettings, attentions: Mapping[str, Any]) -> None:
    key, names = "student.fit_attentions", student.fit_attentions
    mixable = [name for name, each in attentions.items() if each.trains_layers]
    for name in names:
        require_choice(key, name, mixable)
    require(len(set(names)) == len(names) > 1, key, names, "give two or more different mechanisms")
    inside = 0 < student.fit_fidelity < 1
    require(inside, "student.fit_fidelity", student.fit_fidelity, "give a share between 0 and 1, such as 0.9")
    require(
        not is_student(student.checkpoint), "student.attention", FIT, "student.checkpoint has its mechanisms already"
    )
    one = student.target_speedup is None
    require(one, "student.attention", FIT, "student.target_speedup needs the mechanism to time; leave one of them out")
