"""The wrapper that every script ends through."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from distill.utils.cli import run
from distill.utils.errors import UserError, loading_problem
from distill.utils.interrupts import SIGNALS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Give the test runner its own handlers back."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
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


def test_a_message_cannot_move_the_cursor_or_fill_the_screen(capsys):
    def main():
        raise UserError("label '\x1b[2Jred' \x00 " + "x" * 5000 + " end")

    assert leave(main) == 2
    line = capsys.readouterr().err
    assert line.startswith(r"error: label '\x1b[2Jred' \x00 xxx")
    assert line.endswith("xxx end\n")
    assert len(line) < 1100


STORAGE = {
    "no space left on device: run/a.json; free some": OSError(errno.ENOSPC, "No space left", "run/a.json"),
    "no space left on device where the run folder": OSError(errno.ENOSPC, "No space left"),
    "disk quota exceeded": OSError(errno.EDQUOT, "Quota"),
    "file too large": OSError(errno.EFBIG, "File too large"),
    "read-only file system": OSError(errno.EROFS, "Read-only", "run/a.json"),
    "permission denied: run/a.json; change its permissions": PermissionError(errno.EACCES, "no", "run/a.json"),
    "no space left on device where": RuntimeError("I/O error: No space left on device (os error 28)"),
    "read-only file system where the run": shutil.Error([("a", "run/a", "[Errno 30] Read-only file system: 'run/a'")]),
    "no space left on device where the": RuntimeError(
        "[enforce fail at inline_container.cc:672] unexpected pos 1 vs 2"
    ),
}


NUMPY = {
    "no space left on device where the run folder, its cache or TMPDIR is": OSError(
        "Not enough free space to write 40 bytes after offset 128"
    ),
    "no space left on device where the run folder, its": OSError("1000 requested and 486 written"),
}
"""Without a number."""
STORAGE |= NUMPY


@pytest.mark.parametrize("expected", STORAGE)
def test_storage_that_gives_out_is_one_line_and_the_same_command_is_the_way_out(expected, capsys):
    def main():
        raise STORAGE[expected]

    assert leave(main) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {expected}")
    assert line.endswith("start the same command again\n")
    assert line.count("\n") == 1


def test_the_cause_of_an_error_is_looked_at(capsys):
    def main():
        raise ValueError("cannot save") from OSError(errno.ENOSPC, "No space left")

    assert leave(main) == 2


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone"), RuntimeError("PytorchStreamReader failed")]
)
def test_other_errors_of_files_are_bugs_and_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        run(main)


def test_a_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_a_closed_pipe_ends_without_a_traceback():
    program = "from distill.utils.cli import run\nrun(lambda: [print('x' * 1000) for _ in range(10000)] and None)"
    result = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{program}" | head -n 1'],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


class Spy:
    """Would end the test if it was ever unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_no_library_unpickles_more_than_weights(tmp_path):
    """Not even one that asks for it, as DeepSpeed does of the shards of a checkpoint."""
    torch.save({"weights": Spy()}, tmp_path / "shard.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        run(lambda: torch.load(tmp_path / "shard.pt", weights_only=False))


@pytest.mark.parametrize("before", [None, "0"])
def test_what_python_itself_may_unpickle_afterwards_is_as_before(before, monkeypatch):
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(name, raising=False) if before is None else monkeypatch.setenv(name, before)
    assert leave(lambda: os.environ[name] != "1") == 0
    assert os.environ.get(name) == before


MEMORY = {
    "out of memory; give a smaller batch_size or data.max_length": MemoryError(),
    "out of memory (7.45 GiB more were wanted);": MemoryError("Unable to allocate 7.45 GiB for an array with shape"),
    "out of memory (8,589,934,592 bytes more were wanted);": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory: you tried to allocate "
        "8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "out of memory (2 GiB more were wanted);": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 9.00 GiB"
    ),
    "out of memory; give": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "out of memory; ": OSError(errno.ENOMEM, "Cannot allocate memory"),
}


@pytest.mark.parametrize("expected", MEMORY)
@pytest.mark.parametrize("wrapped", [False, True])
def test_memory_that_gives_out_is_one_line_with_the_way_out(expected, wrapped, capsys):
    def main():
        if wrapped:
            raise ValueError("cannot go on") from MEMORY[expected]
        raise MEMORY[expected]

    assert leave(main) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {expected}")
    assert line.endswith("or use a machine with more\n")
    assert line.count("\n") == 1


def test_no_checkpoint_is_blamed_for_memory_that_gives_out():
    assert loading_problem(ValueError("torn")) == "torn"
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(type(error)):
            loading_problem(error)


@pytest.mark.parametrize(
    ("error", "is_said"), [(OSError(errno.ENOSPC, "No space left"), False), (KeyError("a"), True)]
)
def test_a_thread_that_storage_ends_leaves_no_traceback(error, is_said, capsys):
    """Whoever waits for it raises the same, and that is one line."""

    def end():
        raise error

    def main():
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()

    assert leave(main) == 0
    assert ("Traceback" in capsys.readouterr().err) == is_said
