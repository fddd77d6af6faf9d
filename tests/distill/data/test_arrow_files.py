"""Feather and arrow files: of every version and compression, as pandas and the library datasets write them."""

import datasets
import pandas
import pyarrow as pa
import pytest
from helpers.data_folders import write
from pyarrow import feather

from distill.config.data_schema import DataConfig
from distill.data.readers import column_names
from distill.data.splits import load_data, resolve_task
from distill.utils.errors import UserError

COLUMNS = {"text": [f"some words {i}" for i in range(40)], "label": ["neg", "pos"] * 20}


def write_stream(path, codec=None):
    table = pa.table(COLUMNS)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=7)


def write_saved(path):
    datasets.Dataset.from_dict(COLUMNS).save_to_disk(path.with_name("saved"))
    path.write_bytes((path.with_name("saved") / "data-00000-of-00001.arrow").read_bytes())


WRITERS = {
    "pandas.feather": lambda path: pandas.DataFrame(COLUMNS).to_feather(path),
    "categories.feather": lambda path: pandas.DataFrame(COLUMNS).astype({"label": "category"}).to_feather(path),
    "chunks.arrow": lambda path: feather.write_feather(pa.table(COLUMNS), path, compression="zstd", chunksize=7),
    "first.feather": lambda path: feather.write_feather(pa.table(COLUMNS), str(path), version=1),
    "stream.arrow": write_stream,
    "compressed.ARROW": lambda path: write_stream(path, "lz4"),
    "saved.arrow": write_saved,
}


def load(path):
    data = DataConfig(dir=str(path))
    return load_data(resolve_task("custom", data), data)


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_rows(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert column_names(tmp_path / name) == ["text", "label"]
    splits = load(tmp_path / name)
    parts = (splits.train, splits.held_out, splits.validation["validation"])
    found = sorted((int(i), t, int(y)) for p in parts for i, (t,), y in zip(p.ids, p.texts, p.labels, strict=True))
    assert found == [(i, f"some words {i}", i % 2) for i in range(40)]
    assert splits.notes == ()


@pytest.mark.parametrize("name", ["pandas.feather", "stream.arrow", "first.feather"])
@pytest.mark.parametrize("kept", [0, 3, 40, -200])
def test_torn_files_are_refused_in_one_line(tmp_path, name, kept):
    WRITERS[name](tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(UserError, match=name) as refusal:
        load(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_offsets_that_point_outside_are_refused(tmp_path):
    """Arrow reads them as they stand."""
    path = tmp_path / "mine.arrow"
    write_stream(path)
    content = path.read_bytes()
    offsets = pa.array(COLUMNS["text"][:7]).buffers()[1].to_pybytes()[:32]
    assert offsets in content
    path.write_bytes(content.replace(offsets, offsets[:28] + b"\xff\xff\xff\x7f"))
    with pytest.raises(UserError, match=r"cannot read .*mine\.arrow"):
        load(path)


def test_a_folder_of_them_and_a_copy_beside_another_table(tmp_path):
    WRITERS["pandas.feather"](tmp_path / "train.feather")
    write(tmp_path / "dev.csv", {"text": ["a", "b"], "label": ["neg", "pos"]})
    assert load(tmp_path).validation["validation"].texts == [("a",), ("b",)]
    (tmp_path / "dev.csv").unlink()
    (tmp_path / "train.feather").rename(tmp_path / "tickets.feather")
    assert load(tmp_path).notes == ("train is read from tickets.feather",)
    write(tmp_path / "tickets.csv", COLUMNS)
    assert load(tmp_path).notes == ("train is read from tickets.csv",)
