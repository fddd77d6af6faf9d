"""Files, folders and the Hub: what every format gives, and what is refused."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.data_folders import MANY, folder_with, load, write

from distill.tasks import TASKS
from distill.utils.errors import UserError


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, extension):
    columns = {"sentence": ["NA", "007", "null", "zwölf 글", "'"], "label": [0, 1, 0, 1, 1]}
    _, _, validation = load(folder_with(tmp_path, columns, extension))
    examples = validation["validation"]
    assert examples.texts == [("NA",), ("007",), ("null",), ("zwölf 글",), ("'",)]
    assert examples.labels.tolist() == [0, 1, 0, 1, 1]
    assert examples.ids.tolist() == [0, 1, 2, 3, 4]
    assert examples.labels.dtype == examples.ids.dtype == np.int64


def test_tsv_keeps_quotation_marks_and_csv_reads_them(tmp_path):
    _, _, validation = load(folder_with(tmp_path, b'sentence\tlabel\n"a\t1\nb" "c"\t0\n', "tsv"))
    assert validation["validation"].texts == [('"a',), ('b" "c"',)]
    (tmp_path / "sst2" / "validation.tsv").unlink()
    _, _, validation = load(folder_with(tmp_path, b'sentence,label\n"a, ""b""\nc",1\nd,0\n', "csv"))
    assert validation["validation"].texts == [('a, "b"\nc',), ("d",)]


def test_byte_order_mark_is_not_part_of_a_column(tmp_path):
    _, _, validation = load(folder_with(tmp_path, "sentence,label\né,1\na,0\n".encode("utf-8-sig"), "csv"))
    assert validation["validation"].texts == [("é",), ("a",)]


def test_dictionary_encoded_columns(tmp_path):
    columns = {"sentence": pa.array(["x", "y", "x"]).dictionary_encode(), "label": pa.array([1, 0, 1], pa.int8())}
    (tmp_path / "sst2").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "sst2" / "validation.parquet")
    write(tmp_path / "sst2" / "train.csv", MANY)
    _, _, validation = load(tmp_path)
    assert validation["validation"].texts == [("x",), ("y",), ("x",)]


def test_rows_are_counted_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.data.readers.ROWS_PER_CHUNK", 3)
    for extension in ("csv", "jsonl", "parquet"):
        write(tmp_path / extension / "sst2" / f"train.{extension}", MANY)
        columns = {"sentence": list("abcdefgh"), "label": [0, 1, 0, 1, 0, 1, 0, 7]}
        write(tmp_path / extension / "sst2" / f"validation.{extension}", columns)
        with pytest.raises(UserError, match="row 8: label 7"):
            load(tmp_path / extension)
        columns["label"][7] = 1
        write(tmp_path / extension / "sst2" / f"validation.{extension}", columns)
        _, _, validation = load(tmp_path / extension)
        assert "".join(text for (text,) in validation["validation"].texts) == "abcdefgh"


@pytest.mark.parametrize(
    ("content", "extension", "message"),
    [
        (b"", "csv", "is empty"),
        (b"", "parquet", "is empty"),
        (b"sentence,label\n", "csv", "is empty"),
        (b"\n\n", "jsonl", "is empty"),
        (b"sentence,sentence,label\na,b,1\n", "csv", "column 'sentence' more than once"),
        (b'{"sentence": "a", "sentence": "b", "label": 1}\n', "jsonl", "line 1 is not JSON: a key stands twice"),
        (b'{"sentence": ' + b"[" * 100_000, "jsonl", "line 1 is not JSON: maximum recursion depth"),
        (b"\x1f\x8b\x08\x00", "csv", "looks like gzip"),
        (b"PK\x03\x04\xff\xfe", "csv", "looks like a zip or Excel file"),
        (b"PAR1\xff", "csv", "looks like parquet"),
        ("sentence,label\na,1\n".encode("utf-16")[:-1], "csv", "looks like UTF-16"),
        (b"text,label\na,1\n", "csv", "no column 'sentence'; its columns are text, label"),
        (b'{"sentence": "a"}\n', "jsonl", "has no column 'label'; its columns are sentence$"),
        (b"sentence,label\na,1\nb,1,2\n", "csv", "cannot read"),
        (b"sentence,label\na,b,1\nb,c,2\n", "csv", "more fields than the header"),
        (b'sentence,label\n"a,1\n', "csv", "cannot read.*EOF inside string"),
        (b"sentence,label\na,1\nb\n", "csv", "row 2: column 'label' is missing"),
        (b"PAR1 torn", "parquet", "cannot read"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": "b"', "jsonl", "line 2 is not JSON"),
        (b'["a", 1]\n', "jsonl", "line 1 is not a JSON object"),
        ("sentence,label\nхорошо,1\n".encode("cp1251"), "csv", "not UTF-8 text"),
        ('{"sentence": "좋아요", "label": 1}\n'.encode("euc-kr"), "jsonl", "not UTF-8 text"),
        ("sentence,label\nsch\u00f6n, sch\u00f6n,1\n".encode()[:-10] + b"\xc3", "csv", "not UTF-8 text"),
    ],
)
def test_unusable_files(tmp_path, content, extension, message):
    with pytest.raises(UserError, match=message) as caught:
        load(folder_with(tmp_path, content, extension))
    assert f"validation.{extension}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_torn_in_the_middle(tmp_path):
    folder = folder_with(tmp_path, MANY, "parquet")
    path = folder / "sst2" / "validation.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*validation\.parquet"):
        load(folder)


def test_parquet_text_that_is_not_utf8(tmp_path):
    broken = pa.array([b"\xff\xfe"]).view(pa.string())
    folder = folder_with(tmp_path, MANY, "csv")
    (folder / "sst2" / "validation.csv").unlink()
    pq.write_table(pa.table({"sentence": broken, "label": [1]}), folder / "sst2" / "validation.parquet")
    with pytest.raises(UserError, match="UTF-8"):
        load(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.mkdir(), r"validation\.csv is a folder"),
        (lambda path: path.symlink_to("nowhere"), r"validation\.csv is a broken link"),
        (lambda path: path.symlink_to(path.name), r"validation\.csv is a broken link"),
        (os.mkfifo, r"validation\.csv is no regular file"),
    ],
)
def test_something_else_in_the_place_of_a_file(tmp_path, spoil, message):
    write(tmp_path / "sst2" / "train.csv", MANY)
    spoil(tmp_path / "sst2" / "validation.csv")
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("folder", ["x" * 5000, "~nobody-of-this-name/data", "/proc/1/root/data"])
def test_a_folder_that_cannot_be_opened(folder):
    with pytest.raises(UserError, match=r"data\.dir"):
        load(folder)


def test_missing_folders_and_files_say_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no folder .*sst2.*train\.<parquet\|jsonl\|csv\|tsv>"):
        load(tmp_path)
    write(tmp_path / "sst2" / "train.csv", MANY)
    with pytest.raises(UserError, match=r"no validation\.<parquet\|jsonl\|csv\|tsv> in .*sst2"):
        load(tmp_path)
    write(tmp_path / "sst2" / "validation.csv", MANY)
    write(tmp_path / "sst2" / "validation.tsv", MANY)
    with pytest.raises(UserError, match="the same split; keep one"):
        load(tmp_path)


def test_hub_without_network_says_the_way_out(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub\nmore")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(UserError, match=r"nyu-mll/glue sst2.*no network\?.*--data.dir FOLDER or --data.dir embedded"):
        load(None, source=None)
    with pytest.raises(UserError, match=r"--data.dir FOLDER$"):
        load(None, TASKS["imdb"], source=None)


def test_hub_columns_of_klue_sts_are_unpacked(monkeypatch):
    import datasets

    rows = [
        {"sentence1": "a", "sentence2": "b", "labels": {"label": score, "real-label": score, "binary-label": 0}}
        for score in (0.5, 4.5, 2.0)
    ]
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    _, _, validation = load(None, TASKS["klue_sts"], source=None)
    assert validation["validation"].labels.tolist() == [0.5, 4.5, 2.0]


@pytest.mark.network
@pytest.mark.parametrize("name", ["wnli", "klue_sts"])
def test_hub_download(name):
    _, _, validation = load(None, TASKS[name], source=None)
    assert len(validation["validation"]) == {"wnli": 71, "klue_sts": 519}[name]
