"""The line that refuses a value: the key, its value and what is expected."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from distill.utils.errors import UserError, choices_hint


def as_written(value: Any) -> str:
    """Return a value as a configuration has it: null and true, where Python says None and True."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raise UserError with the key, its value and what is expected, unless the condition holds."""
    if not condition:
        raise UserError(f"{key} is {as_written(value)}: {expected}")


def require_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Raise UserError, with the nearest choice, unless the value is one of them."""
    require(value in choices, key, value, choices_hint(value, choices))


def require_positive(section: str, values: Any, keys: Sequence[str]) -> None:
    """Raise UserError unless each of the section's keys is null or above 0."""
    for key in keys:
        value = getattr(values, key)
        require(value is None or value > 0, f"{section}.{key}", value, "give a number above 0")
