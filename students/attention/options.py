"""The options of attention mechanisms: their types, their ranges, and one line for every value that cannot be."""

import difflib
from collections.abc import Mapping
from typing import Any

Option = bool | int | float | str | tuple[str, ...]
"""A default, which says of which type the option is; of a tuple of names, the first is the default."""
Limits = tuple[int, int]
"""The lowest and the highest value of a number."""

LARGEST = 2**17
"""Above every number of tokens that a student reads."""


def resolve(options: Mapping[str, Option], limits: Mapping[str, Limits], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of a mechanism, the given ones checked and the others at their defaults.

    Args:
        options: those that there are.
        limits: of the numbers among them, where they are not 0 to `LARGEST`.
        given: by name; None is the default.

    Raises:
        ValueError: an option that there is not, or a value of the wrong type, outside its range or choices.
    """
    for name in given:
        if name not in options:
            raise ValueError(unknown_option(name, options))
    return {
        name: _resolve(name, default, limits.get(name, (0, LARGEST)), given.get(name))
        for name, default in options.items()
    }


def unknown_option(name: Any, options: Mapping[str, Option]) -> str:
    """Say that a mechanism has no such option, and which it has."""
    nearest = difflib.get_close_matches(str(name), options, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"attention option {name!r} is unknown; the mechanism's options: {', '.join(options) or 'none'}{hint}"


def _resolve(name: str, default: Option, limits: Limits, value: Any) -> Any:
    if value is None:
        return default[0] if isinstance(default, tuple) else default
    if isinstance(default, tuple):
        if value not in default:
            raise ValueError(f"attention option {name} {value!r} is unknown; choose one of {', '.join(default)}")
        return value
    if isinstance(default, bool):
        fits, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        fits, expected = isinstance(value, str), "a word"
    else:
        lowest, highest = limits
        kinds = int if isinstance(default, int) else int | float
        fits = isinstance(value, kinds) and not isinstance(value, bool) and lowest <= value <= highest
        expected = f"a {'whole ' if isinstance(default, int) else ''}number from {lowest:,} to {highest:,}"
    if not fits:
        raise ValueError(f"attention option {name} must be {expected}, got {value!r}")
    return type(default)(value)
