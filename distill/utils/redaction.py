"""Texts without what must not be published."""

import os
import re
from pathlib import Path

SECRET = re.compile(r"(?<![A-Z])(TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_?KEY|CREDENTIALS?)(?![A-Z])", re.IGNORECASE)
ABSOLUTE_PATH = re.compile(r"""(?<![\w./~])(?:/[^\s/'":;,()<>]+){2,}""")
SHORTEST_SECRET = 8
"""Characters; a shorter value is a flag, and stands in many words."""


def publishable(text: str) -> str:
    """Return a text with ~ for this user's home folder and without values of secret variables of the environment."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET.search(name):
            text = text.replace(value, f"${name}")
    home = str(Path.home())
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)


def without_absolute_paths(text: str) -> str:
    """Return a text in which only the last part of every absolute path is left: ``…/train.csv``."""
    return ABSOLUTE_PATH.sub(lambda found: f"…/{found[0].rpartition('/')[2]}", text)
