"""Commands in the process of the test, without what costs most of their time and is no matter of the test's."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from distill.benchmark import suite
from distill.export import alternatives
from distill.utils.cli import run
from pipelines import compare

QUICK = ("--lengths", "16", "--batch-sizes", "1", "--seconds-per-point", "0.02")
"""How a comparison or an export is timed where nothing but its going through is of interest."""


def call(monkeypatch: pytest.MonkeyPatch, main: Callable[[], int | None], *arguments: object) -> int:
    """Run a command's ``main`` with these arguments and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run(main)
    return int(ended.value.code or 0)


def compare_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> dict[str, Any]:
    """Compare models from their folders alone; return the record that is printed.

    Without their memory, which a fresh process measures, and without the teacher in ONNX Runtime, which the run that
    left these folders has measured.
    """
    with monkeypatch.context() as patch:
        patch.setattr(suite, "measure_memory", lambda *models, **how: ())
        patch.setattr(alternatives, "measure_alternatives", lambda *models: [])
        capsys.readouterr()
        assert call(patch, compare.main, *arguments, *QUICK, "--format", "json") == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record
