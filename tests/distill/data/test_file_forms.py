"""Files in other forms than the plainest: encodings, separators, quotation marks, compression, JSON lists, headers."""

import gzip
import json

import pytest
from helpers.data_folders import load

from distill.data.columns import find_columns
from distill.data.splits import load_splits
from distill.data.text_files import has_quoted_fields
from distill.tasks import custom_task
from distill.utils.errors import UserError

TASK = custom_task(["text"], "label", ["neg", "pos"], False)
ROWS = [(f"schöne Worte {i}", ("neg", "pos")[i % 2]) for i in range(40)]


def lines(separator=",", header="text,label"):
    body = "".join(f"{text}{separator}{label}\n" for text, label in ROWS)
    return header.replace(",", separator) + "\n" + body


def objects():
    return [{"text": text, "label": label} for text, label in ROWS]


def read(path):
    """Return all rows and the notes of a file."""
    splits = load_splits(TASK, source=str(path), seed=0, max_train_examples=None, held_out_fraction=0.1)
    parts = (splits.train, splits.held_out, *splits.validation.values())
    found = sorted(
        (int(i), texts[0], int(y))
        for part in parts
        for i, texts, y in zip(part.ids, part.texts, part.labels, strict=True)
    )
    return [(text, ("neg", "pos")[label]) for _, text, label in found], splits.notes


FORMS = {
    "mine.csv": (lines().encode(), ()),
    "mine.CSV": (lines().encode(), ()),
    "semicolons.csv": (lines(";").encode(), ("semicolons.csv is read with ';' between the fields",)),
    "bars.csv": (lines("|").encode(), ("bars.csv is read with '|' between the fields",)),
    "tabs.csv": (lines("\t").encode(), ("tabs.csv is read with tabs between the fields",)),
    "tabs.txt": (lines("\t").encode(), ()),
    "mine.csv.gz": (gzip.compress(lines().encode()), ()),
    "mine.tsv.gz": (gzip.compress(lines("\t").encode()), ()),
    "mine.jsonl.GZ": (gzip.compress("".join(json.dumps(row) + "\n" for row in objects()).encode()), ()),
    "list.json": (json.dumps(objects(), indent=1).encode(), ()),
    "list.json.gz": (gzip.compress(json.dumps(objects()).encode()), ()),
    "lines.json": ("".join(json.dumps(row) + "\n" for row in objects()).encode(), ()),
    "windows.csv": (
        lines().encode("cp1252"),
        ("windows.csv is read as cp1252, because it is not UTF-8",),
    ),
    "windows.jsonl": (
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects()).encode("cp1252"),
        ("windows.jsonl is read as cp1252, because it is not UTF-8",),
    ),
    "both.csv": (
        lines(";").encode("cp1252"),
        ("both.csv is read as cp1252, because it is not UTF-8 and with ';' between the fields",),
    ),
    "excel.txt": (lines("\t").encode("utf-16"), ("excel.txt is read as UTF-16, as its first bytes say",)),
    "big.tsv": (
        b"\xfe\xff" + lines("\t").encode("utf-16-be"),
        ("big.tsv is read as UTF-16, as its first bytes say",),
    ),
    "wide.csv.gz": (
        gzip.compress(lines(";").encode("utf-16")),
        ("wide.csv.gz is read as UTF-16, as its first bytes say and with ';' between the fields",),
    ),
    "powershell.jsonl": (
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects()).encode("utf-16"),
        ("powershell.jsonl is read as UTF-16, as its first bytes say",),
    ),
    "list of two bytes.json": (
        json.dumps(objects(), ensure_ascii=False).encode("utf-16"),
        ("list of two bytes.json is read as UTF-16, as its first bytes say",),
    ),
    "four bytes.csv": (lines().encode("utf-32"), ("four bytes.csv is read as UTF-32, as its first bytes say",)),
    "no mark.csv": (lines().encode("utf-16-le"), ("no mark.csv is read as UTF-16-LE, as its first bytes say",)),
    "no mark.jsonl": (
        "".join(json.dumps(row) + "\n" for row in objects()).encode("utf-16-be"),
        ("no mark.jsonl is read as UTF-16-BE, as its first bytes say",),
    ),
    "header.csv": (lines(header="\ufeffText , LABEL").encode(), ()),
    "header.jsonl": ("".join(json.dumps({" Text": t, "Label": y}) + "\n" for t, y in ROWS).encode(), ()),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(tmp_path, name):
    content, notes = FORMS[name]
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == (ROWS, notes)


def test_columns_are_found_in_spite_of_spaces_and_case(tmp_path):
    (tmp_path / "mine.csv").write_text(lines(header="Text , Label"))
    assert find_columns(tmp_path / "mine.csv", None) == (("Text ",), " Label")


def test_columns_that_are_alike_are_asked_for(tmp_path):
    (tmp_path / "mine.csv").write_text("TEXT,Text,label\na,b,pos\n")
    with pytest.raises(UserError, match="several columns like 'text': TEXT, Text"):
        read(tmp_path / "mine.csv")


QUOTED = 'text\tlabel\n"a ""b"" c"\tpos\n"d\te"\tneg\nplain\tpos\n"f\ng"\tneg\n'


def test_what_pandas_quotes_is_unquoted_and_what_glue_writes_is_not(tmp_path):
    (tmp_path / "train.tsv").write_text(lines("\t"))
    (tmp_path / "validation.tsv").write_text(QUOTED)
    splits = load_splits(TASK, source=str(tmp_path), seed=0, max_train_examples=None, held_out_fraction=0.1)
    assert splits.validation["validation"].texts == [('a "b" c',), ("d\te",), ("plain",), ("f\ng",)]
    assert splits.notes == ("validation.tsv is read with quotation marks around fields, as pandas writes them",)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (QUOTED, True),
        ('"text"\t"label"\n"a"\t"pos"\n', True),
        ("text\tlabel\na\tpos\n", False),
        ('text\tlabel\n"a"\tpos\n"b" "c"\tneg\n', False),
        ('text\tlabel\n"all of it"\tpos\n', False),
        ('text\tlabel\n"a ""b"" c"\tpos\nsaid "so"\tneg\n', False),
        ('text\tlabel\nan inch is 1"\tpos\na ""b""\tneg\n', False),
        ('text\tlabel\n"never ""closed\tpos\n' + "more\tneg\n" * 2000, False),
    ],
)
def test_fields_in_quotation_marks_are_told_from_texts_with_them(text, quoted):
    assert has_quoted_fields(text.splitlines(keepends=True)) is quoted


REFUSED = {
    "torn.csv.gz": (gzip.compress(lines().encode())[:-20], "cannot read .*torn.csv.gz"),
    "plain.csv.gz": (lines().encode(), "cannot read .*Not a gzipped file"),
    "cyrillic.csv": (lines().replace("schöne Worte", "хорошие слова").encode("cp1251"), "not UTF-8"),
    "korean.csv": (lines().replace("schöne Worte", "좋은 영화").encode("euc-kr"), "not UTF-8"),
    "a lost byte.csv": ((lines() * 3).encode()[:-30] + b"\xc3,pos\n", "not UTF-8"),
    "half a character.csv": (lines().encode("utf-16")[:-1], r"not UTF-8 text \(it looks like UTF-16\); save it as"),
    "half a character.csv.gz": (gzip.compress(lines().encode("utf-16")[:-1]), "not UTF-8 text; save it as UTF-8"),
    "prose.txt": (b"a text\nanother\n", "its first line holds no tabs; give a table with a header"),
    "columns.json": (
        json.dumps({"text": {"0": "a"}, "label": {"0": "pos"}}).encode(),
        r"its keys text, label hold whole columns.*orient='records', lines=True",
    ),
    "lists.jsonl": (json.dumps({"text": ["a"], "label": ["pos"]}).encode(), "hold whole columns"),
    "wrapped.json": (
        json.dumps({"version": 1, "data": objects()}, indent=1).encode(),
        "is one JSON object with the keys version, data, not rows",
    ),
    "list.jsonl": (json.dumps(objects()).encode(), "line 1 is not a JSON object.*a file named .json"),
    "numbers.json": (b"[1, 2]", "row 1 is not a JSON object"),
    "torn.json": (json.dumps(objects()).encode()[:-9], "is not JSON"),
    "deep.json": (b"[" * 100_000, "is not JSON: maximum recursion"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_says_what_it_is(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        read(tmp_path / name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("C error: out of memory")])
def test_memory_that_does_not_suffice_is_said(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    (tmp_path / "mine.csv").write_text(lines())
    monkeypatch.setattr("distill.data.readers.read_csv", fail)
    with pytest.raises(UserError, match=r"mine\.csv does not fit into memory"):
        read(tmp_path / "mine.csv")


def test_memory_that_does_not_suffice_for_the_texts_is_not_told_as_encoding(tmp_path, monkeypatch):
    import pyarrow as pa

    def fail(*_, **__):
        raise pa.ArrowMemoryError("malloc of size 99 failed")

    (tmp_path / "mine.csv").write_text(lines())
    monkeypatch.setattr("distill.data.rows.pc.binary_length", fail)
    with pytest.raises(UserError, match=r"mine\.csv does not fit into memory"):
        load(tmp_path / "mine.csv", TASK)
