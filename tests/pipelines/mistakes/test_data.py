"""Data that is damaged, missing or something else: refused in one line; what only looks like a mistake is taken."""

import gzip
import io
import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.distill import main

Place = Path
"""A folder made for one mistake: see ``conftest.py``."""


def write_train(place: Place, content: str | bytes, extension: str = "csv") -> None:
    """Replace the train file."""
    folder = place / "data" / "sst2"
    (folder / "train.csv").unlink()
    (folder / f"train.{extension}").write_bytes(content.encode() if isinstance(content, str) else content)


def parquet(columns: dict[str, Any] | pa.Table) -> bytes:
    """Return a table as a parquet file."""
    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer)
    return buffer.getvalue()


GOOD_CSV = b"sentence,label\n" + b"".join(b"text %d,%d\n" % (row, row % 2) for row in range(40))
GOOD_LINES = b"".join(b'{"sentence": "text %d", "label": %d}\n' % (row, row % 2) for row in range(40))
GOOD_PARQUET = parquet({"sentence": [f"text {row}" for row in range(40)], "label": [0, 1] * 20})
TWICE = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], ["sentence", "sentence", "label"])

DATA: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    "missing column": ("csv", "text,label\na,0\n", ("no column 'sentence'", "text, label")),
    "no header": ("csv", "a,0\nb,1\n", ("no column 'sentence'", "a, 0")),
    "column twice": ("csv", "sentence,sentence,label\na,b,1\n", ("'sentence' more than once",)),
    "colons": ("csv", "sentence:label\na:1\n", ("no column 'sentence'", "sentence:label")),
    "web page": ("csv", "<!DOCTYPE html><html>Not found</html>", ("no column 'sentence'", "<!DOCTYPE html>")),
    "pointer of git LFS": ("csv", "version https://git-lfs.github.com/spec/v1\nsize 9\n", ("no column", "git-lfs")),
    "zeros": ("csv", bytes(5000), ("no column 'sentence'", r"\x00")),
    "empty file": ("csv", "", ("train.csv is empty",)),
    "header alone": ("csv", "sentence,label\n", ("train.csv is empty",)),
    "blank lines": ("csv", "\n\n\n", ("train.csv", "No columns")),
    "torn in a row": ("csv", GOOD_CSV[:-3], ("row 40", "'label' is missing")),
    "zeros at the end": ("csv", GOOD_CSV + bytes(50), ("row 41", "NUL character")),
    "zero in a text": ("csv", GOOD_CSV.replace(b"text 3,", b"te\0t,"), ("row 4", "NUL character")),
    "quotation mark left open": ("csv", GOOD_CSV.replace(b"text 3,", b'"text 3,'), ("train.csv", "EOF inside string")),
    "line of 100 MB": ("csv", b"sentence,label\na," + b"x" * 100_000_000, ("row 1", "'label'", " ... ")),
    "text of half a file": ("csv", b'sentence,label\n"' + b"x,1\n" * 500_000 + b'",1\nb,0\n', ("row 1", "2 MB")),
    "not UTF-8": ("csv", "sentence,label\nхорошо,1\n".encode("cp1251"), ("not UTF-8",)),
    "torn UTF-16": ("csv", GOOD_CSV.decode().encode("utf-16")[:-1], ("UTF-16",)),
    "compressed": ("csv", gzip.compress(GOOD_CSV), ("not UTF-8", "looks like gzip")),
    "Excel": ("csv", b"PK\x03\x04\xff\xfe" + bytes(99), ("looks like a zip or Excel file",)),
    "unquoted commas": ("csv", "sentence,label\na, b, c,1\n", ("train.csv", "more fields")),
    "unquoted comma further down": ("csv", GOOD_CSV + b"a, b, c,1\n", ("train.csv", "line 42, saw 4")),
    "control characters": ("csv", "sentence,label\na,\x1b[2J\n", ("row 1", r"\x1b[2J")),
    "text of no length": ("csv", GOOD_CSV.replace(b"text 3,", b" ,"), ("train.csv, row 4", "there is no text")),
    "label outside the range": ("csv", "sentence,label\na,0\nb,2\n", ("row 2", "label 2")),
    "hidden labels": ("csv", "sentence,label\na,-1\nb,-1\n", ("every label is -1",)),
    "one hidden label": ("csv", "sentence,label\na,0\nb,-1\n", ("row 2", "label -1")),
    "label that is a fraction": ("csv", "sentence,label\na,0\nb,0.5\n", ("row 2", "0.5")),
    "label that is a word": ("csv", "sentence,label\na,0\nb,yes\n", ("row 2", "yes")),
    "label misspelt": ("csv", "sentence,label\na,positiv\n", ("row 1", "did you mean 'positive'")),
    "label that is missing": ("csv", "sentence,label\na,1\nb,\n", ("row 2", "missing")),
    "label that is not a number": ("csv", "sentence,label\na,0\nb,nan\n", ("row 2", "nan")),
    "label without end": ("csv", "sentence,label\na,0\nb,inf\n", ("row 2", "inf")),
    "label beyond whole numbers": ("csv", "sentence,label\na,0\nb,1e300\n", ("row 2", "too large")),
    "one class only": ("csv", GOOD_CSV.replace(b",0\n", b",1\n"), ("train", "every label is positive", "two labels")),
    "one row": ("csv", "sentence,label\na,1\n", ("1 usable row",)),
    "tabs without a label": ("tsv", "sentence\tlabel\na\n", ("train.tsv", "row 1", "'label' is missing")),
    "tabs too many": ("tsv", "sentence\tlabel\na\tb\t1\n", ("train.tsv", "more fields")),
    "commas in tsv": ("tsv", GOOD_CSV, ("train.tsv", "no column 'sentence'")),
    "torn lines": ("jsonl", GOOD_LINES[:-9], ("train.jsonl", "line 40 is not JSON")),
    "one list": ("jsonl", '[{"sentence": "a", "label": 1}]', ("line 1 is not a JSON object",)),
    "object over several lines": ("jsonl", json.dumps({"sentence": "a"}, indent=1), ("line 1 is not JSON",)),
    "line without a label": (
        "jsonl",
        GOOD_LINES + b'{"sentence": "a"}',
        ("row 41", "'label' is missing", "data.drop_incomplete"),
    ),
    "line with a key twice": ("jsonl", '{"label": 1, "label": 0}', ("line 1", "a key stands twice")),
    "mixed labels": ("jsonl", GOOD_LINES + b'{"sentence": "a", "label": "1"}', ("row 41", "mixes types")),
    "numbers as text": ("jsonl", '{"sentence": 7, "label": 1}', ("'sentence' holds int64 values, not text",)),
    "lists as text": ("jsonl", '{"sentence": ["a"], "label": 1}', ("row 1", "not text")),
    "null as text": ("jsonl", '{"sentence": null, "label": 1}', ("row 1", "'sentence' is missing")),
    "NaN as label": ("jsonl", '{"sentence": "a", "label": NaN}', ("row 1", "nan")),
    "half a surrogate pair": ("jsonl", r'{"sentence": "\ud83d", "label": 1}', ("row 1", "half a surrogate pair")),
    "brackets without end": ("jsonl", '{"sentence": ' + "[" * 100_000, ("line 1", "recursion")),
    "torn parquet": ("parquet", GOOD_PARQUET[:-20], ("train.parquet", "fetch it again")),
    "parquet with a hole": ("parquet", GOOD_PARQUET[:4] + bytes(300) + GOOD_PARQUET[304:], ("train.parquet",)),
    "csv as parquet": ("parquet", GOOD_CSV, ("train.parquet", "not a parquet file")),
    "parquet as csv": ("csv", GOOD_PARQUET, ("train.csv", "looks like parquet")),
    "parquet of no rows": (
        "parquet",
        parquet(pa.schema([("sentence", "str"), ("label", "i8")]).empty_table()),
        ("empty",),
    ),
    "parquet with a column twice": ("parquet", parquet(TWICE), ("'sentence' more than once",)),
    "parquet of bytes": ("parquet", parquet({"sentence": [b"a"], "label": [1]}), ("binary values, not text",)),
    "parquet of dates": ("parquet", parquet({"sentence": ["a"], "label": [date.today()]}), ("date32", "not labels")),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, refused: Callable[..., str], place: Place) -> None:
    extension, content, expected = DATA[name]
    write_train(place, content, extension)
    message = refused("--data.dir", str(place / "data"))
    for part in expected:
        assert part in message, message


def no_permission(path: Path) -> None:
    """Put a file that nobody may read, not even root, in the place of ``path``."""
    path.symlink_to("/proc/sys/vm/drop_caches")


IN_ITS_PLACE: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "train.csv is a folder"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "train.csv is a broken link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "train.csv is a broken link"),
    "pipe": (os.mkfifo, "train.csv is no regular file"),
    "no permission": (no_permission, "train.csv"),
    "nothing": (lambda path: None, "no train.<"),
    "two formats": (lambda path: [path.with_suffix(suffix).touch() for suffix in (".csv", ".tsv")], "keep one"),
}


@pytest.mark.parametrize("name", IN_ITS_PLACE)
def test_something_else_in_the_place_of_data(name: str, refused: Callable[..., str], place: Place) -> None:
    put, expected = IN_ITS_PLACE[name]
    train = place / "data" / "sst2" / "train.csv"
    train.unlink()
    put(train)
    assert expected in refused("--data.dir", str(place / "data"))


def test_missing_validation_file(refused: Callable[..., str], place: Place) -> None:
    (place / "data" / "sst2" / "validation.csv").unlink()
    assert "no validation." in refused("--data.dir", str(place / "data"))


def test_validation_of_one_class(refused: Callable[..., str], place: Place) -> None:
    (place / "data" / "sst2" / "validation.csv").write_text("sentence,label\na,0\nb,0\n")
    assert "validation: every label is negative" in refused("--data.dir", str(place / "data"))


OWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "columns that are not plain": ("said,answered,label\na,b,0\nc,d,1\n", ("text_columns", "said, answered")),
    "label that is not plain": ("text,opinion\na,0\nb,1\n", ("data.label_column", "text, opinion")),
    "one class": ("text,label\na,x\nb,x\n", ("mine.csv", "'label'", "fewer than two different labels")),
    "two rows": ("text,label\na,x\nb,y\n", ("mine.csv has 2 usable rows", "give at least 10 rows")),
    "nine rows": ("text,label\n" + "a,x\n" * 5 + "b,y\n" * 4, ("mine.csv has 9 usable rows", "at least 10 rows")),
    "one class in the validation that is split off": (
        "text,label\n" + "a,x\n" * 50 + "b,y\n",
        ("validation: every label is x",),
    ),
    "row without text": ('text,label\na,x\n"",y\na,y\n', ("mine.csv, row 2", "there is no text in column 'text'")),
    "scores": ("text,label\n" + "a,3.5\nb,1\n" * 20, ("mine.csv", "3.5", "did you mean --data.regression true?")),
    "row ids": ("text,label\n" + "".join(f"a {row},{row}\n" for row in range(40)), ("'label'", "a row id")),
}


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_ones_own(name: str, refused: Callable[..., str], tmp_path: Path) -> None:
    content, expected = OWN[name]
    (tmp_path / "mine.csv").write_text(content)
    message = refused(
        "--task", "custom", "--data.dir", str(tmp_path / "mine.csv"), "--data.max_train_examples", "null"
    )
    for part in expected:
        assert part in message, message


@pytest.mark.parametrize("name", ["nothere.csv", "nothere"])
def test_neither_a_file_nor_a_folder_of_ones_own(name: str, refused: Callable[..., str]) -> None:
    assert f"data.dir: there is no file or folder {name}" in refused("--task", "custom", "--data.dir", name)


@pytest.mark.parametrize(("name", "kinds"), [("nothere.csv", "file or folder"), ("nothere", "folder")])
def test_no_folder_of_a_task(name: str, kinds: str, refused: Callable[..., str]) -> None:
    assert f"data.dir: there is no {kinds} {name}" in refused("--data.dir", name)


def test_folder_of_another_task(refused: Callable[..., str], place: Place) -> None:
    assert "cola/train." in refused("--data.dir", str(place / "data"), "--task", "cola")


UNLABELLED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing there": (lambda path: None, "there is no file or folder"),
    "an empty file": (lambda path: path.touch(), "is empty"),
    "a binary file": (lambda path: path.write_bytes(bytes(99)), "holds a NUL character"),
    "a folder without texts": (lambda path: path.mkdir(), "holds no texts"),
    "what stands in train": (lambda path: path.write_text("good film number 1"), "holds no text that can be used"),
}


@pytest.mark.parametrize("name", UNLABELLED)
def test_texts_without_labels_that_are_none(name: str, refused: Callable[..., str], place: Place) -> None:
    put, expected = UNLABELLED[name]
    put(place / "texts.txt")
    options = ("--data.dir", str(place / "data"), "--data.unlabelled", str(place / "texts.txt"))
    message = refused(*options)
    assert message.startswith("error: data.unlabelled: ")
    assert str(place / "texts.txt") in message
    assert expected in message


def test_an_empty_name_of_texts_without_labels(refused: Callable[..., str]) -> None:
    assert "data.unlabelled" in refused("--data.unlabelled", "")


def write_windows(place: Place) -> None:
    """Write the train file as Windows programs do: with a byte order mark and CRLF."""
    write_train(place, b"\xef\xbb\xbf" + GOOD_CSV.replace(b"\n", b"\r\n"))


LEGAL: dict[str, Callable[[Place], object]] = {
    "byte order mark and CRLF": write_windows,
    "blank lines": lambda place: write_train(place, GOOD_CSV.replace(b"\n", b"\n\n")),
    "semicolons": lambda place: write_train(place, GOOD_CSV.replace(b",", b";")),
    "cp1252": lambda place: write_train(place, GOOD_CSV.replace(b"text 3,", b"sch\xf6n,")),
    "a list of objects": lambda place: write_train(place, b"[" + b",".join(GOOD_LINES.splitlines()) + b"]", "json"),
    "line breaks in quoted texts": lambda place: write_train(place, GOOD_CSV.replace(b"text 3,", b'"te\nxt, 3",')),
    "emoji and combining marks": lambda place: write_train(
        place, GOOD_CSV.replace(b"text 3,", "👩\u200d🚀 e\u0301,".encode())
    ),
    "labels as names": lambda place: write_train(
        place, GOOD_CSV.replace(b",0\n", b",negative\n").replace(b",1\n", b",positive\n")
    ),
    "the same text twice": lambda place: write_train(place, GOOD_CSV + GOOD_CSV.partition(b"\n")[2]),
    "files from the future": lambda place: [os.utime(path, (9e9, 9e9)) for path in place.rglob("*")],
    "link to the data": lambda place: (place / "data").rename(place / "real") and (place / "data").symlink_to("real"),
}


@pytest.mark.parametrize("name", LEGAL)
def test_what_only_looks_like_a_mistake_is_taken(
    name: str, tiny, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder whose name holds spaces and emoji, without a folder for temporary files."""
    LEGAL[name](place)
    home = place.rename(tmp_path / "mein Ordner 🚀 'x'")
    monkeypatch.setenv("TMPDIR", "/no/such/folder")
    options = ["--data.dir", str(home / "data"), "--teacher.checkpoint", str(home / "teacher")]
    run_dir = ["--run_dir", str(tmp_path / "mein Lauf 🚀")]
    monkeypatch.setattr("sys.argv", ["distill.py", "--config", str(tiny.config), *options, *run_dir, "--check"])
    assert main() == 0, capsys.readouterr()
    assert not (tmp_path / "mein Lauf 🚀").exists()
