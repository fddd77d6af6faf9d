"""The line that refuses a value: the key, its value and what is expected."""

from collections.abc import Collection, Sequence
from typing import Any

from distill.utils.errors import UserError, choices_hint


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raise UserError with the key, its value and what is expected, unless the condition holds."""
    if not condition:
        raise UserError(f"{key} is {value!r}: {expected}")


def require_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Raise UserError, with the nearest choice, unless the value is one of them."""
    require(value in choices, key, value, choices_hint(value, choices))


def require_positive(section: str, values: Any, keys: Sequence[str]) -> None:
    """Raise UserError unless each of the section's keys is null or above 0."""
    for key in keys:
        value = getattr(values, key)
        require(value is None or value > 0, f"{section}.{key}", value, "give a number above 0")
