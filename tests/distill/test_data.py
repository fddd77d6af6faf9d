import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data import Examples, load_splits
from distill.errors import UserError
from distill.tasks import TASKS, custom_task

SST2 = TASKS["sst2"]
STSB = TASKS["stsb"]
MANY = {"sentence": [f"text {i}" for i in range(1000)], "label": [int(i % 10 == 0) for i in range(1000)]}


def write(path, columns):
    """Write a dict of columns in the format of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [separator.join(columns), *(separator.join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")


def load(folder, task=SST2, **changes) -> tuple[Examples, Examples, dict[str, Examples]]:
    settings = {"source": str(folder), "seed": 0, "max_train_examples": None, "held_out_fraction": 0.1} | changes
    splits = load_splits(task, **settings)
    return splits.train, splits.held_out, splits.validation


def folder_with(tmp_path, validation, extension="jsonl", task="sst2"):
    """A folder with good train data and the given validation columns (or raw bytes)."""
    good = {"sentence": ["a", "b"], "label": [0, 1]}
    if task == "stsb":
        good = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0.5, 5.0]}
    write(tmp_path / task / "train.jsonl", good)
    path = tmp_path / task / f"validation.{extension}"
    if isinstance(validation, bytes):
        path.write_bytes(validation)
    else:
        write(path, validation)
    return tmp_path


# Formats


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, extension):
    columns = {"sentence": ["NA", "007", "null", "zwölf 글", ""], "label": [0, 1, 0, 1, 1]}
    _, _, validation = load(folder_with(tmp_path, columns, extension))
    examples = validation["validation"]
    assert examples.texts == [("NA",), ("007",), ("null",), ("zwölf 글",), ("",)]
    assert examples.labels.tolist() == [0, 1, 0, 1, 1]
    assert examples.ids.tolist() == [0, 1, 2, 3, 4]
    assert examples.labels.dtype == examples.ids.dtype == np.int64


def test_tsv_keeps_quotation_marks_and_csv_reads_them(tmp_path):
    _, _, validation = load(folder_with(tmp_path, b'sentence\tlabel\n"a\t1\nb" "c"\t0\n', "tsv"))
    assert validation["validation"].texts == [('"a',), ('b" "c"',)]
    (tmp_path / "sst2" / "validation.tsv").unlink()
    _, _, validation = load(folder_with(tmp_path, b'sentence,label\n"a, ""b""\nc",1\n', "csv"))
    assert validation["validation"].texts == [('a, "b"\nc',)]


def test_byte_order_mark_is_not_part_of_a_column(tmp_path):
    _, _, validation = load(folder_with(tmp_path, "sentence,label\né,1\n".encode("utf-8-sig"), "csv"))
    assert validation["validation"].texts == [("é",)]


def test_dictionary_encoded_columns(tmp_path):
    columns = {"sentence": pa.array(["x", "y", "x"]).dictionary_encode(), "label": pa.array([1, 0, 1], pa.int8())}
    (tmp_path / "sst2").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "sst2" / "validation.parquet")
    write(tmp_path / "sst2" / "train.csv", MANY)
    _, _, validation = load(tmp_path)
    assert validation["validation"].texts == [("x",), ("y",), ("x",)]


def test_rows_are_counted_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.readers.ROWS_PER_CHUNK", 3)
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


# Labels


def test_labels_may_be_names(tmp_path):
    columns = {"sentence": ["a", "b", "c"], "label": ["positive", "negative", "positive"]}
    _, _, validation = load(folder_with(tmp_path, columns, "csv"))
    assert validation["validation"].labels.tolist() == [1, 0, 1]


def test_whole_numbers_written_as_floats_or_booleans(tmp_path):
    _, _, validation = load(folder_with(tmp_path, {"sentence": ["a", "b"], "label": [1.0, 0.0]}))
    assert validation["validation"].labels.tolist() == [1, 0]
    _, _, validation = load(folder_with(tmp_path, {"sentence": ["a", "b"], "label": [True, False]}))
    assert validation["validation"].labels.tolist() == [1, 0]


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_numbers_are_names_where_all_names_are_numbers(tmp_path, extension):
    columns = {"text": ["a", "b", "c", "d", "e"], "stars": [1, 5, 3, 1, 5]}
    write(tmp_path / f"train.{extension}", columns)
    write(tmp_path / f"validation.{extension}", columns)
    task = custom_task(["text"], "stars", ["5", "3", "1"], False)
    _, _, validation = load(tmp_path, task)
    assert validation["validation"].labels.tolist() == [2, 0, 1, 2, 0]


def test_regression_labels_are_float32(tmp_path):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": ["2.5", "0"]}
    _, _, validation = load(folder_with(tmp_path, columns, "csv", "stsb"), STSB)
    assert validation["validation"].labels.dtype == np.float32
    assert validation["validation"].labels.tolist() == [2.5, 0.0]
    assert validation["validation"].texts == [("a", "c"), ("b", "d")]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], r"row 2: label 2 is outside 0 to 1 \(0 = negative, 1 = positive\)"),
        ([-1, 0], "row 1: label -1 is outside"),
        ([-1, -1], "every label is -1.*labelled file"),
        ([0, None], "row 2: column 'label' is missing"),
        ([0.0, float("nan")], "row 2: label nan"),
        ([0, 0.5], r"row 2: label 0\.5 is not a whole number"),
        (["positive", "postive"], "row 2: column 'label' holds 'postive'.*did you mean 'positive'"),
        ([[0], [1]], "row 1: column 'label' holds list"),
        ([0, "one"], "row 2: column 'label' mixes types"),
        ([0, 2**70], "'label' mixes types|row 2"),
        ([0, 1e300], r"row 2: label 1e\+300 is too large for a class"),
        (["0", "1_0"], "row 2: column 'label' holds '1_0'"),
    ],
)
def test_wrong_class_labels(tmp_path, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        load(folder_with(tmp_path, {"sentence": ["a", "b"], "label": labels}))
    assert str(tmp_path / "sst2" / "validation.jsonl") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blank_label_of_a_csv_is_named(tmp_path):
    with pytest.raises(UserError, match="row 2: column 'label' is missing"):
        load(folder_with(tmp_path, b"sentence,label\na,1\nb,\n", "csv"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.0, 5.5], r"row 2: label 5\.5 is outside 0 to 5"),
        ([-1.0, -1.0], "every label is -1"),
        ([1.0, float("inf")], "row 2: label inf is not a number"),
        (["1.0", "high"], "row 2: column 'label' holds 'high', not a number"),
    ],
)
def test_wrong_scores(tmp_path, labels, message):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": labels}
    with pytest.raises(UserError, match=message):
        load(folder_with(tmp_path, columns, task="stsb"), STSB)


# Texts and files


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "row 2: column 'sentence' is missing"),
        ([1, 2], "row 1: column 'sentence' holds int64 values, not text"),
        (["a", 2], "row 2: column 'sentence' mixes types"),
        ([["a"], ["b"]], "row 1: column 'sentence' holds list"),
        (["a", "\ud800"], "row 2: column 'sentence' holds half a surrogate pair"),
        (["a", "b\0"], "row 2: column 'sentence' holds a NUL character"),
        (["a", "x" * 2_000_000], "row 2: column 'sentence' holds 2 MB of text; is a quotation mark left open"),
    ],
)
def test_text_that_is_not_text(tmp_path, texts, message):
    with pytest.raises(UserError, match=message):
        load(folder_with(tmp_path, {"sentence": texts, "label": [0, 1]}))


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
        ("sentence,label\na,1\n".encode("utf-16"), "csv", "looks like UTF-16"),
        (b"text,label\na,1\n", "csv", "no column 'sentence'; its columns are text, label"),
        (b'{"sentence": "a"}\n', "jsonl", "line 1 has no column 'label'; its columns are sentence"),
        (b"sentence,label\na,1\nb,1,2\n", "csv", "cannot read"),
        (b"sentence,label\na,b,1\nb,c,2\n", "csv", "more fields than the header"),
        (b'sentence,label\n"a,1\n', "csv", "cannot read.*EOF inside string"),
        (b"sentence,label\na,1\nb\n", "csv", "row 2: column 'label' is missing"),
        (b"PAR1 torn", "parquet", "cannot read"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": "b"', "jsonl", "line 2 is not JSON"),
        (b'["a", 1]\n', "jsonl", "line 1 is not a JSON object"),
        ("sentence,label\né,1\n".encode("latin-1"), "csv", "not UTF-8 text"),
        ('{"sentence": "é", "label": 1}\n'.encode("latin-1"), "jsonl", "not UTF-8 text"),
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


@pytest.mark.filterwarnings("error")
def test_a_label_beyond_whole_numbers_is_refused_without_a_warning(tmp_path):
    with pytest.raises(UserError, match="too large"):
        load(folder_with(tmp_path, b"sentence,label\na,1e300\n", "csv"))


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


def test_train_of_one_class_teaches_nothing(tmp_path):
    folder = folder_with(tmp_path, {"sentence": ["a", "b"], "label": [0, 1]}, "csv")
    write(folder / "sst2" / "train.jsonl", {"sentence": ["a", "b"], "label": [1, 1]})
    with pytest.raises(UserError, match="train: every label is 1; give examples of at least two labels"):
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


def test_custom_without_validation_file(tmp_path):
    write(tmp_path / "train.csv", MANY)
    task = custom_task(["sentence"], "label", ["0", "1"], False)
    with pytest.raises(UserError, match="no validation"):
        load(tmp_path, task)
    with pytest.raises(UserError, match="not on the Hub"):
        load(None, task, source=None)


def test_imdb_is_reported_on_test_and_mnli_on_two_splits(tmp_path):
    columns = {"text": ["a", "b"], "label": [0, 1]}
    for split in ("train", "test"):
        write(tmp_path / "imdb" / f"{split}.csv", columns)
    assert list(load(tmp_path, TASKS["imdb"])[2]) == ["test"]
    columns = {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [0, 2]}
    for split in ("train", "validation_matched", "validation_mismatched"):
        write(tmp_path / "mnli" / f"{split}.csv", columns)
    assert list(load(tmp_path, TASKS["mnli"])[2]) == ["validation_matched", "validation_mismatched"]


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


# Splitting


def test_train_and_held_out_are_parts_of_train_without_overlap(tmp_path):
    folder = folder_with(tmp_path, MANY, "csv")
    write(folder / "sst2" / "train.jsonl", MANY)
    train, held_out, _ = load(folder, held_out_fraction=0.3)
    assert (len(train), len(held_out)) == (700, 300)
    assert sorted([*train.ids, *held_out.ids]) == list(range(1000))
    for examples in (train, held_out):
        assert examples.texts == [(f"text {i}",) for i in examples.ids]
        assert examples.labels.tolist() == [int(i % 10 == 0) for i in examples.ids]
        assert examples.labels.mean() == pytest.approx(0.1, abs=0.002)


def test_split_depends_on_the_seed_alone(tmp_path):
    folder = folder_with(tmp_path, MANY, "csv")
    write(folder / "sst2" / "train.jsonl", MANY)
    first, again, other = (load(folder, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first[1].ids, again[1].ids)
    assert not np.array_equal(first[1].ids, other[1].ids)


def test_small_subsets_are_part_of_larger_ones(tmp_path):
    folder = folder_with(tmp_path, MANY, "csv")
    write(folder / "sst2" / "train.jsonl", MANY)
    used = []
    for size in (100, 400):
        train, held_out, _ = load(folder, max_train_examples=size)
        assert len(train) + len(held_out) == size
        used.append({*train.ids, *held_out.ids})
    assert used[0] < used[1]


def test_held_out_is_never_too_small_to_select_on(tmp_path):
    folder = folder_with(tmp_path, MANY, "csv")
    write(folder / "sst2" / "train.jsonl", MANY)
    assert len(load(folder, held_out_fraction=0.01)[1]) == 200
    assert len(load(folder, held_out_fraction=0.01, max_train_examples=100)[1]) == 20
    assert len(load(folder, held_out_fraction=0.01, max_train_examples=2)[1]) == 1
    with pytest.raises(UserError, match="at least 2"):
        load(folder, max_train_examples=1)


@pytest.mark.parametrize("task", ["sst2", "mnli", "stsb"])
def test_embedded_source(task):
    train, held_out, validation = load(None, TASKS[task], source="embedded")
    assert list(validation) == list(TASKS[task].validation_splits)
    assert len(train) > len(held_out) > 0
    reported = {text for examples in validation.values() for text in examples.texts}
    assert reported.isdisjoint(train.texts)
    assert len(train.texts[0]) == len(TASKS[task].text_columns)


def test_embedded_has_no_imdb():
    with pytest.raises(UserError, match=r"'imdb' has no embedded version.*sst2"):
        load(None, TASKS["imdb"], source="embedded")


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "name", "num_train", "num_validation"),
    [
        ("glue", "cola", 8551, 1043),
        ("glue", "sst2", 67349, 872),
        ("glue", "mrpc", 3668, 408),
        ("glue", "stsb", 5749, 1500),
        ("glue", "rte", 2490, 277),
        ("glue", "wnli", 635, 71),
        ("klue", "klue_nli", 24998, 3000),
        ("klue", "klue_sts", 11668, 519),
        (".", "imdb", 25000, 25000),
    ],
)
def test_real_sets_have_their_official_sizes(shared, folder, name, num_train, num_validation):
    train, held_out, validation = load(shared / "data" / folder, TASKS[name], held_out_fraction=0.05)
    assert len(train) + len(held_out) == num_train
    assert [len(examples) for examples in validation.values()] == [num_validation]
    if not TASKS[name].is_regression:
        assert set(held_out.labels) == set(range(TASKS[name].num_labels))


@pytest.mark.network
@pytest.mark.parametrize("name", ["wnli", "klue_sts"])
def test_hub_download(name):
    _, _, validation = load(None, TASKS[name], source=None)
    assert len(validation["validation"]) == {"wnli": 71, "klue_sts": 519}[name]
