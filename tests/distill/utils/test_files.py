"""A reader sees a whole file or none, and a start after a kill finds nothing half done."""

import os
from pathlib import Path

import pytest

from distill.utils import files
from distill.utils.files import clean_up, is_leftover, replace_directory, replace_file, write_atomically


class KilledError(Exception):
    """Stands for a process that ends without a word."""


def make(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(content)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced and renamed, in order, by the last part of its name."""
    seen: list[tuple[str, str]] = []
    sync, replace = files._sync, os.replace
    monkeypatch.setattr(files, "_sync", lambda path: (seen.append(("sync", path.name)), sync(path)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(("rename", Path(b).name)), replace(a, b)))
    return seen


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, events):
    write_atomically(tmp_path / "record.json", "{}")
    temporary = f".record.json.{os.getpid()}.incomplete"
    assert events == [("sync", temporary), ("rename", "record.json"), ("sync", tmp_path.name)]
    assert (tmp_path / "record.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_directory_is_on_the_disk_before_it_has_its_name(tmp_path, events):
    make(tmp_path / "model.incomplete" / "deep", "new")
    replace_directory(tmp_path / "model.incomplete", tmp_path / "model")
    kinds = [kind for kind, _ in events]
    assert {name for _, name in events[: kinds.index("rename")]} == {"model.incomplete", "deep", "weights"}
    assert events[-2:] == [("rename", "model"), ("sync", tmp_path.name)]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", "old")
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a", "new")
    assert content(tmp_path) == {"a": "old"}


@pytest.mark.parametrize(("renames", "left"), [(0, "old"), (1, "old"), (2, "new")])
def test_a_replacement_that_a_kill_cuts_is_undone_or_done(renames, left, tmp_path, monkeypatch):
    make(tmp_path / "model", "old")
    make(tmp_path / "model.incomplete", "new")
    replace, calls = os.replace, []

    def dying(source, destination):
        if len(calls) == renames:
            raise KilledError
        calls.append(None)
        replace(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        patch.setattr(files.shutil, "rmtree", lambda *a, **k: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            replace_directory(tmp_path / "model.incomplete", tmp_path / "model")
    clean_up(tmp_path)
    assert content(tmp_path) == {"model/weights": left}


def test_the_only_whole_copy_is_not_removed_for_a_new_one(tmp_path, monkeypatch):
    """A second kill at the same place, without a clean-up in between."""
    make(tmp_path / "model.replaced", "old")
    make(tmp_path / "model.incomplete", "new")
    monkeypatch.setattr(files.shutil, "rmtree", lambda *a, **k: None)
    replace_directory(tmp_path / "model.incomplete", tmp_path / "model")
    assert content(tmp_path) == {"model/weights": "new", "model.replaced/weights": "old"}


def test_what_kills_left_is_removed_and_the_rest_stays(tmp_path):
    for name in ("teacher.incomplete", "checkpoints/layers/checkpoint.incomplete", "baseline", "baseline.replaced"):
        make(tmp_path / name, name)
    for name in (".record.json.77.incomplete", "record.json", "checkpoints/layers/best-epoch-1.incomplete", "my.old"):
        (tmp_path / name).write_text(name)
    clean_up(tmp_path)
    assert content(tmp_path) == {"baseline/weights": "baseline", "record.json": "record.json", "my.old": "my.old"}
    assert not any(is_leftover(path) for path in tmp_path.rglob("*"))


def test_a_file_replaces_another(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    replace_file(tmp_path / "a", tmp_path / "b")
    assert content(tmp_path) == {"b": "a"}
