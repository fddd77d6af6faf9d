"""Folders as people and programs make them: other names of splits, official GLUE, shards, saved data sets."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.data_folders import write

from distill.config.data_schema import DataConfig
from distill.data.splits import load_data, resolve_task
from distill.tasks import TASKS
from distill.utils.errors import UserError

TRAIN = {"text": [f"some words {i}" for i in range(40)], "label": ["neg", "pos"] * 20}
VALIDATION = {"text": ["new a", "new b"], "label": ["neg", "pos"]}


def open_folder(path, name="custom", **settings):
    data = DataConfig(dir=str(path), **settings)
    task = resolve_task(name, data)
    return task, load_data(task, data)


@pytest.mark.parametrize(
    "name", ["dev.csv", "valid.jsonl", "val.parquet", "test.tsv", "Dev.CSV", "validation.json.gz"]
)
def test_validation_by_another_name_is_said(tmp_path, name):
    write(tmp_path / "train.csv", TRAIN)
    if name.endswith("gz"):
        import gzip
        import json

        rows = [{"text": t, "label": y} for t, y in zip(*VALIDATION.values(), strict=True)]
        (tmp_path / name).write_bytes(gzip.compress(json.dumps(rows).encode()))
    else:
        write(tmp_path / name.lower(), VALIDATION)
        (tmp_path / name.lower()).rename(tmp_path / name)
    _, splits = open_folder(tmp_path)
    assert splits.validation["validation"].texts == [("new a",), ("new b",)]
    assert splits.notes == (() if name.startswith("validation") else (f"validation is read from {name}",))


def test_the_plainest_name_wins(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    for name in ("test.csv", "dev.csv"):
        write(tmp_path / name, VALIDATION | {"text": [name, "x"]})
    assert open_folder(tmp_path)[1].validation["validation"].texts[0] == ("dev.csv",)
    write(tmp_path / "validation.csv", VALIDATION)
    assert open_folder(tmp_path)[1].validation["validation"].texts[0] == ("new a",)
    (tmp_path / "train.txt").write_text("notes")  # of two forms, the one that was always read
    assert len(open_folder(tmp_path)[1].validation["validation"]) == 2


@pytest.mark.parametrize("columns", [{"text": ["a", "b"]}, {"text": ["a", "b"], "label": [-1, -1]}])
def test_a_test_file_that_hides_its_labels_is_no_validation(tmp_path, columns):
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "test.csv", columns)
    _, splits = open_folder(tmp_path)
    assert (len(splits.validation["validation"]), splits.notes) == (8, ())


def test_the_only_table_of_a_folder_is_train(tmp_path):
    write(tmp_path / "tickets.csv", TRAIN)
    for name in ("README.md", "licence.txt"):
        (tmp_path / name).write_text("about it")
    _, splits = open_folder(tmp_path)
    assert len(splits.validation["validation"]) == 8
    assert splits.notes == ("train is read from tickets.csv",)
    write(tmp_path / "more.csv", TRAIN)
    with pytest.raises(UserError, match=r"no train\..*it holds more\.csv, tickets\.csv: rename the right one"):
        open_folder(tmp_path)


@pytest.mark.parametrize("inner", ["data", "."])
def test_shards_of_the_hub(tmp_path, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    table = pa.table(TRAIN)
    for number in (1, 0):
        pq.write_table(table.slice(20 * number, 20), folder / f"train-0000{number}-of-00002.parquet")
    pq.write_table(pa.table(VALIDATION), folder / "validation-00000-of-00001.parquet")
    _, splits = open_folder(tmp_path)
    found = sorted(zip(splits.train.ids, splits.train.texts, strict=True))
    assert all(texts == (f"some words {index}",) for index, texts in found)
    assert len(splits.train) + len(splits.held_out) == 40
    (folder / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match="lacks part 0 of 2 of train; fetch the files again"):
        open_folder(tmp_path)


def test_a_row_of_a_shard_is_counted_over_all(tmp_path):
    for number, texts in enumerate((["a", "b"], ["c", None])):
        columns = {"text": texts, "label": ["neg", "pos"]}
        pq.write_table(pa.table(columns), tmp_path / f"train-0000{number}-of-00002.parquet")
    with pytest.raises(UserError, match=r"train-\*-of-00002\.parquet, row 4: column 'text' is missing"):
        open_folder(tmp_path)


def test_saved_data_sets(tmp_path):
    train, validation = datasets.Dataset.from_dict(TRAIN), datasets.Dataset.from_dict(VALIDATION)
    train.save_to_disk(tmp_path / "one")
    assert len(open_folder(tmp_path / "one")[1].validation["validation"]) == 8
    datasets.DatasetDict(train=train, validation=validation).save_to_disk(tmp_path / "both")
    assert open_folder(tmp_path / "both")[1].validation["validation"].texts == [("new a",), ("new b",)]


PAIRS = "some words {i}\tother words {i}"
OFFICIAL = {
    "cola": ("CoLA", "", "gj04\t{b}\t\tsome words {i}"),
    "sst2": ("SST-2", "sentence\tlabel", "some words {i}\t{b}"),
    "mrpc": ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{b}\t1\t2\t" + PAIRS),
    "stsb": ("STS-B", "index\tgenre\tsentence1\tsentence2\tscore", "{i}\tnews\t" + PAIRS + "\t{b}.5"),
    "qqp": ("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\t" + PAIRS + "\t{b}"),
    "mnli": ("MNLI", "index\tsentence1\tsentence2\tlabel1\tgold_label", "{i}\t" + PAIRS + "\tneutral\t{three}"),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel", "{i}\t" + PAIRS + "\t{two}"),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel", "{i}\t" + PAIRS + "\t{two}"),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel", "{i}\t" + PAIRS + "\t{b}"),
}


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("inside", [False, True])
def test_official_glue(tmp_path, name, inside):
    folder, header, row = OFFICIAL[name]
    (tmp_path / folder).mkdir()
    two, three = TASKS["rte"].label_names, TASKS["mnli"].label_names
    for split in ("train", *(s.replace("validation", "dev") for s in TASKS[name].validation_splits)):
        rows = [row.format(i=i, b=i % 2, two=two[i % 2], three=three[i % 3]) for i in range(30)]
        (tmp_path / folder / f"{split}.tsv").write_text("\n".join([header, *rows] if header else rows) + "\n")
    task, splits = open_folder(tmp_path / folder if inside else tmp_path, name)
    for split in task.validation_splits:
        part = splits.validation[split]
        assert part.texts[7] == ("some words 7", "other words 7")[: len(task.text_columns)]
        expected = 1.5 if task.is_regression else 7 % task.num_labels
        assert part.labels[7] == expected
        assert f"{split} is read from {split.replace('validation', 'dev')}.tsv" in splits.notes


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("train.xlsx", "train.xlsx is an Excel file, .*save its sheet as csv"),
        ("train.csv.zip", "train.csv.zip is an archive, .*unpack it"),
        ("reviews.pkl", "reviews.pkl is a pickle, .*to_parquet"),
        ("train.csv.bz2", "train.csv.bz2 is an archive, .*unpack it"),
    ],
)
def test_what_is_not_read_says_how_to_convert_it(tmp_path, name, way_out):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(UserError, match=way_out):
        open_folder(tmp_path)
    with pytest.raises(UserError, match=way_out.split(" ", 1)[1]):
        open_folder(tmp_path / name)
