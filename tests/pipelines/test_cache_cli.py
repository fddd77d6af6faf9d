"""pipelines/cache.py: lists what a shared cache holds, removes what is asked for, and nothing that is in use."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.utils.cli import run
from pipelines import cache
from teachers.cache_folder import STUDENTS, Lease, find_entries, write_about

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"{number:020x}" for number in range(3)]


@pytest.fixture
def root(tmp_path):
    """Outputs that were used today and 40 days ago, and a student of 10 days."""
    for name, age in zip((NAMES[0], NAMES[1], f"{STUDENTS}/{NAMES[2]}"), (0, 40, 10), strict=True):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "logits.npy").write_bytes(b"x" * 2_000_000)
        write_about(folder, model="bert, 12 layers of 768", texts=67349, made_for="runs/reviews")
        Lease(folder).end()
        used = time.time() - age * cache.DAY
        os.utime(folder.with_name(f"{folder.name}.lock"), (used, used))
    (tmp_path / "mine.txt").write_text("")
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cache.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run(cache.main)
    return ended.value.code


def left(root):
    return sorted(entry.path.name for entry in find_entries(root))


def test_a_row_for_every_entry_and_nothing_removed(root, monkeypatch, capsys):
    assert call(monkeypatch, "--dir", root) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "0.01 GB in 3 entries"
    rows = [line for line in lines if "runs/reviews" in line]
    assert [row.split()[0] for row in rows] == [NAMES[1], NAMES[2], NAMES[0]]
    assert all(word in rows[0] for word in ("outputs", "2.00 MB", "67,349 texts", "bert, 12 layers of 768"))
    assert time.strftime("%Y-%m-%d") in rows[2]
    assert "softmax student" in rows[1]
    assert left(root) == sorted(NAMES)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [(("--clear",), []), (("--older-than", "30"), [0, 2]), (("--older-than", "5"), [0]), (("--older-than", "0"), [])],
)
def test_what_is_asked_for_goes(root, monkeypatch, capsys, arguments, kept):
    assert call(monkeypatch, "--dir", root, *arguments) == 0
    assert left(root) == [NAMES[index] for index in kept]
    assert f"removed: {3 - len(kept)} entries" in capsys.readouterr().out
    assert (root / "mine.txt").exists()


def test_what_is_in_use_stays_and_is_named(root, monkeypatch, capsys):
    lease = Lease(root / NAMES[0])
    assert call(monkeypatch, "--dir", root, "--clear") == 0
    assert left(root) == [NAMES[0]]
    assert f"in use, left: {NAMES[0]} (2.00 MB)" in capsys.readouterr().out
    lease.end()


def test_a_folder_that_holds_none(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "--dir", tmp_path, "--clear") == 0
    assert "holds no outputs of teachers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dir", "nowhere"), "--dir nowhere is no folder; give the cache.dir of a run"),
        ((), "--dir"),
        (("--dir", ".", "--clear", "--older-than", "3"), "not allowed with"),
        (("--dir", ".", "--older-than", "-1"), "'-1' is not a number of days"),
        (("--dir", ".", "--older-than", "nan"), "'nan' is not a number of days"),
        (("--dir", ".", "--older-than", "soon"), "'soon' is not a number of days"),
    ],
)
def test_mistakes_are_one_line_and_code_2(root, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(root)
    assert call(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert left(root) == sorted(NAMES)


def test_it_does_not_wait_for_torch():
    program = "import sys, pipelines.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
