"""Several mechanisms in the layers of one student: what is asked of one, answered for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .base import SelfAttention
from .options import Option, unknown_option

COMPLEXITIES = ("linear", "subquadratic", "quadratic")


@dataclass(frozen=True)
class Mixture:
    """Answers of :class:`SelfAttention`'s class attributes and class methods for layers of several mechanisms.

    Attention options are given in one mapping; each mechanism takes those that it has.
    """

    mechanisms: Mapping[str, type[SelfAttention]]
    """By name, each once."""

    trains_layers = True

    @property
    def complexity(self) -> str:
        return max((each.complexity for each in self._all), key=COMPLEXITIES.index)

    @property
    def is_softmax(self) -> bool:
        return all(each.is_softmax for each in self._all)

    @property
    def estimates_softmax(self) -> bool:
        return all(each.estimates_softmax or each.is_softmax for each in self._all)

    @property
    def has_context(self) -> bool:
        return all(each.has_context for each in self._all)

    @property
    def has_random_features(self) -> bool:
        return any(each.has_random_features for each in self._all)

    @property
    def uses_num_features(self) -> bool:
        return any(each.uses_num_features for each in self._all)

    @property
    def features_per_layer(self) -> bool:
        return all(each.features_per_layer for each in self._all)

    @property
    def projections(self) -> tuple[str, ...]:
        """Those that all of them have."""
        first, *others = self._all
        return tuple(name for name in first.projections if all(name in each.projections for each in others))

    @property
    def why_not_causal(self) -> str | None:
        reasons = ((name, each.why_not_causal) for name, each in self.mechanisms.items())
        return next((f"has {name}, which {reason}" for name, reason in reasons if reason is not None), None)

    @property
    def continues(self) -> bool:
        return all(each.continues for each in self._all)

    @property
    def carries_segments(self) -> bool:
        return any(each.carries_segments for each in self._all)

    @property
    def options(self) -> dict[str, Option]:
        return {name: option for each in self._all for name, option in each.options.items()}

    def own_options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of one mechanism, those not given at their defaults."""
        mechanism = self.mechanisms[name]
        return mechanism.resolve_options({key: value for key, value in given.items() if key in mechanism.options})

    def resolve_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given options, checked; the others differ from mechanism to mechanism."""
        for key in given:
            if key not in self.options:
                raise ValueError(unknown_option(key, self.options))
        for name in self.mechanisms:
            self.own_options(name, given)
        return dict(given)

    def has_map_with(self, options: Mapping[str, Any]) -> bool:
        return all(self.mechanisms[name].has_map_with(self.own_options(name, options)) for name in self.mechanisms)

    def why_not_exact(self, options: Mapping[str, Any]) -> str | None:
        if self.is_softmax:
            return self._all[0].why_not_exact({})
        others = (name for name, each in self.mechanisms.items() if not each.is_softmax)
        reasons = ((name, self.mechanisms[name].why_not_exact(self.own_options(name, options))) for name in others)
        return next((f"has {name}, which {reason}" for name, reason in reasons if reason is not None), None)

    @property
    def _all(self) -> list[type[SelfAttention]]:
        return list(self.mechanisms.values())


class Mechanisms(dict[str, Any]):
    """Classes by name."""

    def of(self, attention: str | Sequence[str]) -> Any:
        """Return the class behind a name, or what stands for the classes behind one name for every layer.

        KeyError for another name.
        """
        return self[attention] if isinstance(attention, str) else Mixture({name: self[name] for name in attention})
