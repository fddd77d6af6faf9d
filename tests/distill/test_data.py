"""Which examples a run trains on, selects on and reports on, and texts that are none."""

import numpy as np
import pytest
from helpers.data_folders import MANY, folder_with, load, write

from distill.errors import UserError
from distill.tasks import TASKS, custom_task


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


def test_train_of_one_class_teaches_nothing(tmp_path):
    folder = folder_with(tmp_path, {"sentence": ["a", "b"], "label": [0, 1]}, "csv")
    write(folder / "sst2" / "train.jsonl", {"sentence": ["a", "b"], "label": [1, 1]})
    with pytest.raises(UserError, match="train: every label is 1; give examples of at least two labels"):
        load(folder)


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
