"""Which examples a run trains on, selects on and reports on, and texts that are none."""

import numpy as np
import pytest
from helpers.data_folders import MANY, folder_with, load, write

from distill.data import splits
from distill.data.splits import load_splits
from distill.tasks import TASKS, custom_task
from distill.utils.errors import UserError

PAIRS = {"question1": ["a", ""], "question2": [" ", "b"], "label": [0, 1]}
SCORES = {"sentence1": ["a"] * 100, "sentence2": ["b"] * 100, "label": [row % 6 for row in range(100)]}


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
    with pytest.raises(
        UserError, match=r"train: every label is positive \(rows: 2\); give examples of at least two labels"
    ):
        load(folder)


def test_validation_of_one_class_tells_nothing(tmp_path):
    folder = folder_with(tmp_path, {"sentence": ["a", "b"], "label": [0, 0]}, "csv")
    with pytest.raises(
        UserError, match=r"validation: every label is negative \(rows: 2\); give examples of at least two labels"
    ):
        load(folder)
    write(tmp_path / "stsb" / "train.csv", SCORES)
    write(tmp_path / "stsb" / "validation.csv", SCORES | {"label": [2.5] * 100})
    assert len(load(tmp_path, TASKS["stsb"])[2]["validation"]) == 100


def test_a_class_that_train_lacks_is_named(tmp_path):
    columns = {"premise": ["a"] * 3, "hypothesis": ["b"] * 3, "label": [0, 1, 2]}
    write(tmp_path / "klue_nli" / "validation.csv", columns)
    write(tmp_path / "klue_nli" / "train.csv", columns | {"label": [0, 2, 2]})
    with pytest.raises(UserError, match="validation holds examples of class 'neutral', train none; give train some"):
        load(tmp_path, TASKS["klue_nli"])
    columns = {"premise": ["a"] * 99, "hypothesis": ["b"] * 99, "label": [0] * 97 + [1, 2]}
    write(tmp_path / "klue_nli" / "train.csv", columns)
    load(tmp_path, TASKS["klue_nli"])
    with pytest.raises(UserError, match=r"'neutral', 'contradiction', train none; raise data\.max_train_examples"):
        load(tmp_path, TASKS["klue_nli"], max_train_examples=10)


def test_a_text_of_no_length_is_refused_and_half_a_pair_is_not(tmp_path):
    for text in ("", "  ", "\t\u00a0"):
        with pytest.raises(UserError, match=r"validation\.jsonl, row 3: there is no text"):
            load(folder_with(tmp_path, {"sentence": ["a", "b", text], "label": [0, 1, 1]}))
    write(tmp_path / "qqp" / "train.jsonl", PAIRS)
    write(tmp_path / "qqp" / "validation.jsonl", PAIRS)
    assert load(tmp_path, TASKS["qqp"])[2]["validation"].texts == [("a", " "), ("", "b")]
    write(tmp_path / "qqp" / "validation.jsonl", PAIRS | {"question1": ["a", " "], "question2": ["b", ""]})
    with pytest.raises(UserError, match="row 2: there is no text"):
        load(tmp_path, TASKS["qqp"])


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("blank", ["", " \t ", None, float("nan")])
def test_a_missing_text_is_told_alike_in_all_formats(tmp_path, extension, blank):
    if blank is None or blank != blank:
        blank = "" if extension in ("csv", "tsv") else None if extension == "parquet" else blank
    texts = ["a", "b", " " if blank == " \t " and extension == "tsv" else blank, "d", "e"]
    columns = {"sentence": texts, "label": [0, 1, 0, 1, 0]}
    write(tmp_path / "sst2" / "train.csv", MANY)
    write(tmp_path / "sst2" / f"validation.{extension}", columns)
    message = r"row 3: (column 'sentence' is missing|there is no text in column 'sentence'); write one, leave the row"
    with pytest.raises(UserError, match=message):
        load(tmp_path)
    splits = load_splits(
        TASKS["sst2"],
        source=str(tmp_path),
        seed=0,
        max_train_examples=None,
        held_out_fraction=0.1,
        drop_incomplete=True,
    )
    assert splits.validation["validation"].ids.tolist() == [0, 1, 3, 4]
    assert splits.notes == ("validation: 1 of 5 rows (20.0 %) have no text or label: left out",)


@pytest.mark.parametrize("nothing", ["", None])
def test_half_a_pair_is_taken_alike_and_counted(tmp_path, nothing):
    columns = {"question1": ["a", "b", nothing], "question2": ["c", nothing, "d"], "label": [0, 1, 1]}
    for split in ("train", "validation"):
        write(tmp_path / "qqp" / f"{split}.jsonl", columns)
    settings = {"source": str(tmp_path), "seed": 0, "max_train_examples": None, "held_out_fraction": 0.1}
    splits = load_splits(TASKS["qqp"], **settings)
    assert splits.validation["validation"].texts == [("a", "c"), ("b", ""), ("", "d")]
    assert splits.num_half_blank == {"train": 2, "validation": 2}
    write(tmp_path / "qqp" / "train.jsonl", PAIRS | {"question1": ["a", "b"], "question2": ["c", "d"]})
    write(tmp_path / "qqp" / "validation.jsonl", columns | {"label": [0, 1, 0], "question2": ["c", "e", "d"]})
    assert len(load_splits(TASKS["qqp"], **settings, drop_incomplete=True).validation["validation"]) == 2


def test_nothing_left_is_refused(tmp_path):
    write(tmp_path / "mine.jsonl", {"sentence": ["a", ""], "label": [None, 1]})
    with pytest.raises(UserError, match="in every row a text or the label is missing"):
        load(tmp_path / "mine.jsonl", SENTENCES, drop_incomplete=True)


SENTENCES = custom_task(["sentence"], "label", ["0", "1"], False)


def test_validation_is_split_off_one_file(tmp_path):
    write(tmp_path / "mine.csv", MANY)
    train, held_out, validation = load(tmp_path / "mine.csv", SENTENCES)
    part = validation["validation"]
    assert (len(train), len(held_out), len(part)) == (640, 160, 200)
    assert sorted([*train.ids, *held_out.ids, *part.ids]) == list(range(1000))
    assert part.texts == [(f"text {i}",) for i in part.ids]
    assert part.labels.tolist() == [int(i % 10 == 0) for i in part.ids]
    assert part.labels.mean() == pytest.approx(0.1, abs=0.002)


def test_a_folder_with_train_alone_is_split_like_its_file(tmp_path):
    write(tmp_path / "folder" / "train.jsonl", MANY)
    write(tmp_path / "inner" / "custom" / "train.parquet", MANY)
    expected = load(tmp_path / "folder" / "train.jsonl", SENTENCES)[2]["validation"].ids
    for folder in ("folder", "inner"):
        assert np.array_equal(load(tmp_path / folder, SENTENCES)[2]["validation"].ids, expected)
    write(tmp_path / "folder" / "validation.csv", {"sentence": ["a", "b"], "label": [0, 1]})
    train, held_out, validation = load(tmp_path / "folder", SENTENCES)
    assert (len(train) + len(held_out), validation["validation"].texts) == (1000, [("a",), ("b",)])


def test_split_off_validation_depends_on_seed_and_fraction_alone(tmp_path):
    write(tmp_path / "mine.csv", MANY)

    def ids(**changes):
        return load(tmp_path / "mine.csv", SENTENCES, **changes)[2]["validation"].ids.tolist()

    assert ids() == ids(max_train_examples=50) == ids(held_out_fraction=0.3)
    assert ids() != ids(seed=1)
    assert len(ids(validation_fraction=0.3)) == 300
    assert len(ids(validation_fraction=0.01)) == 200
    train, held_out, _ = load(tmp_path / "mine.csv", SENTENCES, max_train_examples=50)
    assert len(train) + len(held_out) == 50
    assert set(ids()).isdisjoint([*train.ids, *held_out.ids])


def test_a_class_of_one_row_is_trained_on(tmp_path):
    task = custom_task(["sentence"], "label", ["0", "1", "2"], False)
    for seed in range(10):
        write(tmp_path / "mine.csv", MANY | {"label": [*MANY["label"][:-1], 2]})
        train, _, validation = load(tmp_path / "mine.csv", task, seed=seed)
        assert 999 in train.ids
        assert set(validation["validation"].labels) == {0, 1}


def test_scores_are_split_off_in_their_shares(tmp_path):
    write(tmp_path / "mine.csv", {"sentence": ["a"] * 1000, "label": list(range(1000))})
    part = load(tmp_path / "mine.csv", custom_task(["sentence"], "label", None, True))[2]["validation"]
    assert np.histogram(part.labels, 10, (0, 1000))[0].tolist() == [20] * 10


def test_the_sample_is_the_middle_of_every_part_in_the_order_of_the_labels():
    """Neither end is preferred, whatever the order of the rows."""
    labels = np.arange(100)[::-1] / 10
    rows = np.random.default_rng(0).permutation(90)  # scores of 9.9 down to 1.0
    rest, sampled = splits._split_off(labels, rows, 0.05)
    assert labels[sampled][::-1] == pytest.approx([1.2 + 0.5 * part for part in range(18)])  # a fifth, not 5 %
    assert sorted([*rest, *sampled]) == list(range(90))
    assert list(rest) == sorted(rest)


def test_of_classes_of_one_row_each_the_sample_is_taken_all_the_same():
    rest, sampled = splits._split_off(np.arange(10), np.arange(10), 0.3)
    assert (len(rest), sampled.tolist()) == (7, [1, 5, 8])


def test_only_custom_goes_without_a_validation_file(tmp_path):
    write(tmp_path / "sst2" / "train.csv", MANY)
    with pytest.raises(UserError, match="no validation"):
        load(tmp_path)
    with pytest.raises(UserError, match="not on the Hub"):
        load(None, SENTENCES, source=None)


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
    write(folder / "sst2" / "train.jsonl", {"sentence": ["a", "b"], "label": [0, 1]})
    assert len(load(folder, held_out_fraction=0.01)[1]) == 1
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


def test_a_class_of_one_row_stays_in_the_rest_and_a_score_that_stands_once_need_not():
    labels = np.array([0] * 10 + [1] + [2] * 10)
    for seed in range(20):  # wherever the sample starts
        rows = np.random.default_rng(seed).permutation(len(labels))
        rest, sampled = splits._split_off(labels, rows, 1 / 3)
        assert 10 in rest
        assert set(labels[sampled]) == {0, 2}
    rest, sampled = splits._split_off(np.arange(9.0), np.arange(9), 1 / 3)
    assert len(sampled) == 3
