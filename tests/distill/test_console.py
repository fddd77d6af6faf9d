"""The wrapper that every script ends through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.console import run
from distill.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


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


def test_interrupt_is_one_line_and_code_130(capsys):
    def main():
        raise KeyboardInterrupt

    assert leave(main) == 130
    assert capsys.readouterr().err.count("\n") == 1


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
