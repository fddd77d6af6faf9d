"""A shared cache: what is in use stays, what is removed goes at once, and nothing else that lies there is touched."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distill.utils.errors import UserError
from teachers import cache_folder
from teachers.cache_folder import (
    OUTPUTS,
    STAGE_TOKENS,
    STUDENT,
    STUDENTS,
    TOKENS,
    Lease,
    find_entries,
    making_room,
    remove_entry,
    remove_leftovers,
    remove_oldest,
    write_about,
)

NAMES = [f"{number:020x}" for number in range(5)]
ROOT = Path(__file__).resolve().parents[2]


def make_entry(root, name, size=1000, used=0):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "logits.npy").write_bytes(b"x" * size)
    Lease(folder).end()
    os.utime(folder.with_name(f"{folder.name}.lock"), (used, used))
    return folder


@pytest.fixture
def root(tmp_path):
    """Three teachers' outputs, a student, and what is nobody's business."""
    for number in range(3):
        make_entry(tmp_path, NAMES[number], used=1000 * (3 - number))
    make_entry(tmp_path / STUDENTS, NAMES[3], size=50)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / NAMES[4]).write_text("a file of such a name")
    return tmp_path


def test_entries_and_nothing_else(root):
    write_about(root / NAMES[0], model="bert", texts=3)
    found = find_entries(root)
    assert [(entry.path.name, entry.kind) for entry in found] == [
        (NAMES[3], STUDENT),
        (NAMES[2], OUTPUTS),
        (NAMES[1], OUTPUTS),
        (NAMES[0], OUTPUTS),
    ]
    assert [entry.last_used for entry in found] == [0, 1000, 2000, 3000]
    assert [entry.bytes for entry in found[:3]] == [50, 1000, 1000]
    assert found[3].about["model"] == "bert"
    assert found[1].about == {}
    (root / NAMES[1] / cache_folder.ABOUT).write_text("[torn")
    assert find_entries(root)[2].about == {}


def test_tokens_are_listed_and_removed_and_never_make_room(root):
    folder = root / STAGE_TOKENS / ("e" * 20)
    folder.mkdir(parents=True)
    (folder / "labels.npy").write_bytes(bytes(30))
    os.utime(folder / "labels.npy", (0, 0))
    os.utime(folder, (4000, 4000))
    (entry,) = [each for each in find_entries(root) if each.kind == TOKENS]
    assert (entry.path, entry.bytes, entry.last_used) == (folder, 30, 4000)
    assert remove_oldest(root, 10**9, 0) == 0
    assert folder.exists()
    assert remove_entry(entry)
    assert not folder.exists()


def test_the_oldest_go_until_there_is_room(root):
    """Students, which took hours, are not counted and stay."""
    assert remove_oldest(root, 1000, 3000) == 2000
    assert [entry.path.name for entry in find_entries(root)] == [NAMES[3], NAMES[1], NAMES[0]]
    assert remove_oldest(root, 0, 2000) == 2000
    lease = Lease(root / NAMES[1])  # by which it also becomes the newest
    assert remove_oldest(root, 5000, 100) == 1000
    assert [entry.path.name for entry in find_entries(root)] == [NAMES[3], NAMES[1]]
    lease.end()
    assert (root / "thesis" / "chapter.tex").exists()


def test_what_another_process_uses_stays_until_it_ends(root):
    program = "import sys; from pathlib import Path; from teachers.cache_folder import Lease; "
    program += "lease = Lease(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(root / NAMES[0])],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    (entry,) = [entry for entry in find_entries(root) if entry.path.name == NAMES[0]]
    assert not remove_entry(entry)
    assert entry.path.exists()
    other.kill()
    other.communicate()
    assert remove_entry(entry)
    assert not entry.path.exists()
    assert not entry.path.with_name(f"{NAMES[0]}.lock").exists()


def test_who_waited_for_a_removal_holds_the_new_lock(root):
    """The file that it waited at is gone: a lock on it would keep nobody out."""
    held = cache_folder._lock(root / NAMES[0], cache_folder.fcntl.LOCK_EX)
    leases = []
    waiting = threading.Thread(target=lambda: leases.append(Lease(root / NAMES[0])))
    waiting.start()
    Path(held.name).unlink()
    held.close()
    waiting.join(timeout=20)
    (entry,) = [entry for entry in find_entries(root) if entry.path.name == NAMES[0]]
    assert not remove_entry(entry)
    leases[0].end()
    assert remove_entry(entry)


def test_one_run_at_a_time_makes_room(root):
    with making_room(root), pytest.raises(BlockingIOError):
        cache_folder._lock(root / "room", cache_folder.fcntl.LOCK_EX | cache_folder.fcntl.LOCK_NB)
    with making_room(root / "new"):
        assert (root / "new").is_dir()


def test_what_killed_processes_left_half_removed(root):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for process in (ended.stdout.strip(), os.getpid()):
        (root / f"{NAMES[1]}.{process}.incomplete").mkdir()
    (root / "mine.incomplete").mkdir()
    remove_leftovers(root)
    left = sorted(path.name for path in root.glob("*.incomplete"))
    assert left == [f"{NAMES[1]}.{os.getpid()}.incomplete", "mine.incomplete"]


def test_a_file_system_without_locks_is_named(root, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cache_folder.fcntl, "flock", refuse)
    with pytest.raises(
        UserError, match=r"cache\.dir .*gives no locks \(No locks available\); give another cache\.dir"
    ):
        Lease(root / NAMES[0])
