"""Shared by the tests of the grammars."""

import random
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def drawn() -> Callable[..., list]:
    """Return a function that lets a writer of sentences write for a label, once for each of many seeds."""

    def draw(writer: Callable[[random.Random, int], Any], label: int, size: int = 400) -> list:
        return [writer(random.Random(seed), label) for seed in range(size)]

    return draw
