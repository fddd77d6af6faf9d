"""The one exception that is a user's mistake."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend; the message is one line that names the thing and the way out."""


def choices_hint(value: object, choices: Iterable[str]) -> str:
    """Name the valid choices and the nearest match to ``value``, for the end of an error message."""
    names = list(choices)
    nearest = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    suggestion = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"choose one of {', '.join(names)}{suggestion}"
