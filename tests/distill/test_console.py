"""The wrapper that every script ends through."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distill.console import run
from distill.errors import UserError
from distill.interrupts import SIGNALS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def signal_handlers():
    """Give the test runner its own handlers back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def leave(main):
    with pytest.raises(SystemExit) as exit_info:
        run(main)
    return exit_info.value.code


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_is_what_main_returns(returned, code):
    assert leave(lambda: returned) == code


def test_user_error_is_one_line_and_code_2(capsys):
    def main():
        raise UserError("unknown task 'sst3'\n  did you mean sst2?")

    assert leave(main) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: unknown task 'sst3' did you mean sst2?\n"
    assert captured.out == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line_that_says_how_to_go_on(number, code, capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert leave(lambda: signal.raise_signal(number)) == code
    captured = capsys.readouterr()
    assert captured.err == f"stopped by {number.name}; the same command goes on from what was saved\n"
    assert captured.out == ""


def test_of_several_processes_one_speaks(capsys, monkeypatch):
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert leave(lambda: signal.raise_signal(signal.SIGTERM)) == 143
        assert capsys.readouterr().err.count("\n") == lines


def test_a_signal_that_is_repeated_does_not_disturb_the_end(capsys):
    assert leave(lambda: signal.raise_signal(signal.SIGTERM)) == 143
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)


def test_a_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_a_closed_pipe_ends_without_a_traceback():
    program = "from distill.console import run\nrun(lambda: [print('x' * 1000) for _ in range(10000)] and None)"
    result = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{program}" | head -n 1'],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr
