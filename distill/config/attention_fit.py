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
    operations: list[int]
    """Of every layer's block, on one text of the longest length."""
    seconds: float
    """Of the short run."""


@dataclass(frozen=True)
class AttentionFit(JsonObject):
    """What was asked for, what was tried, and what was taken."""

    fidelity: float
    candidates: list[str]
    """Both as they were configured."""
    length: int
    """At which operations are counted, in tokens."""
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

    def best(self, layer: int) -> TriedAttention:
        """Return the cheapest that is good enough for a layer; where none is, the best, of equals the cheapest."""
        able = [
            (each.operations[layer], -share, each) for each, share in self._shares(layer) if share >= self.fidelity
        ]
        if able:
            return min(able, key=lambda found: found[:2])[-1]
        best = [(share, -each.operations[layer], each) for each, share in self._shares(layer)]
        return max(best, key=lambda found: found[:2])[-1]

    def _shares(self, layer: int) -> list[tuple[TriedAttention, float]]:
        """Return what was tried and could be trained, and what it explains of a layer."""
        return [(each, each.fidelity[layer]) for each in self.tried if each.fidelity is not None]

    def why(self, layer: int) -> str:
        """Say why a layer gets its mechanism."""
        if layer in self.kept:
            return "softmax, as student.softmax_layers says"
        best, shares = self.best(layer), dict((each.attention, share) for each, share in self._shares(layer))
        share = shares[best.attention]
        able = sum(each >= self.fidelity for each in shares.values())
        if not able:
            return f"{best.attention}, which explains most ({share:.3f}); none reaches {self.fidelity:g}"
        only = "the only one that reaches" if able == 1 else f"the cheapest of {able} that reach"
        return f"{best.attention}, {only} {self.fidelity:g} ({share:.3f})"


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
