"""Texts without labels: read from every form they come in, none twice, and none that the task is scored on."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas
import pytest

from distill.data import unlabelled
from distill.data.splits import HIDDEN, Examples, Splits
from distill.data.unlabelled import find_unlabelled, text_keys, unlabelled_in_words
from distill.data.unlabelled_files import TEXTS_PER_CHUNK
from distill.tasks import TASKS, Task, custom_task
from distill.utils.errors import UserError

SINGLE, PAIR = TASKS["sst2"], TASKS["mrpc"]


def examples(*texts: tuple[str, ...]) -> Examples:
    return Examples(np.arange(len(texts)), list(texts), np.zeros(len(texts), np.int64))


OWN = Splits(
    examples(("in train ",), ("a", "b")),
    examples(("held out",)),
    {"validation": examples(("Seen  there",), ("c", "d"))},
)


def used(task: Task, place: Path, own: Splits = OWN) -> list[tuple[str, ...]]:
    chunks = list(find_unlabelled(task, str(place), own).chunks())
    assert all((chunk.labels == HIDDEN).all() for chunk in chunks)
    return [tuple(map(str.strip, row)) for chunk in chunks for row in chunk.texts]


TEXTS = ["one, two", 'a "quoted" text', "käse", "fünf"]
JSON_LINES = "".join(json.dumps({"label": 9, "sentence": text}) + "\n" for text in TEXTS)
FORMS = {
    "texts.txt": "\n".join(TEXTS).encode(),
    "windows.txt": ("\ufeff" + "\r\n".join(TEXTS)).encode(),
    "western.TXT": "\n".join(TEXTS).encode("cp1252"),
    "texts.txt.gz": gzip.compress("\n".join([*TEXTS, ""]).encode()),
    "tabs in it.txt": "\n".join([TEXTS[0].replace(" ", "\t"), *TEXTS[1:]]).encode(),
    "a table.txt": "\n".join(["sentence\tlabel", *(f"{text}\t1" for text in TEXTS)]).encode(),
    "texts.jsonl": JSON_LINES.encode(),
    "texts.jsonl.gz": gzip.compress(JSON_LINES.encode()),
    "texts.json": json.dumps([{"sentence": text} for text in TEXTS]).encode(),
    "texts.csv": pandas.DataFrame({"Sentence ": TEXTS, "n": range(4)}).to_csv(index=False).encode(),
    "texts.tsv": pandas.DataFrame({"sentence": TEXTS}).to_csv(index=False, sep="\t").encode(),
    "texts.parquet": pandas.DataFrame({"sentence": TEXTS, "label": ["?"] * 4}).to_parquet(),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_texts(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name])
    expected = [text.replace(" ", "\t", 1) if "tabs" in name and text == TEXTS[0] else text for text in TEXTS]
    assert used(SINGLE, tmp_path / name) == [(text,) for text in expected]


def test_a_folder_is_read_file_by_file_and_folder_by_folder(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("first\nsecond")
    (tmp_path / "b" / "deep" / "c.csv").write_text("sentence\nthird\n")
    (tmp_path / "b" / "z.txt").write_text("fourth")
    (tmp_path / "b" / "empty.txt").touch()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("never")
    found = find_unlabelled(SINGLE, str(tmp_path), OWN)
    assert [row[0].strip() for chunk in found.chunks() for row in chunk.texts] == [
        *("first", "second", "third", "fourth"),
    ]
    assert found.notes == (
        f"data.unlabelled: 2 of 5 files in {tmp_path.name} are empty or of another format: left out",
    )


def test_a_saved_data_set_is_one_table(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"sentence": TEXTS}).save_to_disk(str(tmp_path / "saved"))
    assert used(SINGLE, tmp_path / "saved") == [(text,) for text in TEXTS]


def test_what_is_known_blank_or_twice_is_left_out_and_counted(tmp_path):
    """Case and white space tell nothing apart: an uncased teacher would not."""
    lines = ["new", " ", "seen there", "Held   Out", "IN train", "new ", "other", "", "NEW", "seen\tthere"]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    found = find_unlabelled(SINGLE, str(tmp_path / "texts.txt"), OWN)
    assert [row[0].strip() for chunk in found.chunks() for row in chunk.texts] == ["new", "other"]
    assert [chunk.ids.tolist() for chunk in found.chunks()] == [[0, 6]]
    reasons = {"blank": 2, "in validation": 2, "in held-out train": 1, "in train": 1, "duplicates": 2}
    assert (len(found), found.dropped) == (2, reasons)
    said = unlabelled_in_words(found, 9)
    assert said == (
        "texts without labels: 2 (9 tokens), read by the stages alone; left out: 2 blank, 2 in validation, "
        "1 in held-out train, 1 in train, 2 duplicates"
    )


def test_pairs_are_known_as_pairs(tmp_path):
    rows = [("a", "b"), ("b", "a"), ("c", "d"), ("x", " "), ("a", "d"), ("b", "A")]
    pandas.DataFrame(rows, columns=["sentence1", "sentence2"]).to_csv(tmp_path / "pairs.csv", index=False)
    found = find_unlabelled(PAIR, str(tmp_path / "pairs.csv"), OWN)
    assert [row for chunk in found.chunks() for row in chunk.texts] == [("b", "a"), ("a", "d")]
    assert found.dropped == {"blank": 1, "in validation": 1, "in train": 1, "duplicates": 1}
    own_columns = custom_task(["first", "second"], "label", ["no", "yes"], regression=False)
    (tmp_path / "pairs.jsonl").write_text('{"first": "p", "second": "q"}')
    assert used(own_columns, tmp_path / "pairs.jsonl") == [("p", "q")]


def test_texts_of_other_tasks_count_as_train(tmp_path):
    (tmp_path / "texts.txt").write_text("of another task\nnew")
    own = Splits(OWN.train, OWN.held_out, OWN.validation, examples(("of another task",)))
    assert used(SINGLE, tmp_path / "texts.txt", own) == [("new",)]


def test_keys_keep_the_texts_of_a_pair_apart():
    assert len(set(text_keys([("a b", "c"), ("a", "b c"), ("ab", "c"), ("c", "a b")]).tolist())) == 4


def test_many_texts_are_read_in_parts_and_a_sample_tells_about_them(tmp_path, monkeypatch):
    monkeypatch.setattr(unlabelled, "SAMPLE", 500)
    count = 2 * TEXTS_PER_CHUNK + 7
    lines = [f"text number {row}" + " and more" * (row % 5) for row in range(count)]
    (tmp_path / "texts.txt").write_text("\n".join([*lines, *lines[:100], "Seen there"]))
    found = find_unlabelled(SINGLE, str(tmp_path / "texts.txt"), OWN)
    assert [len(chunk) for chunk in found.chunks()] == [TEXTS_PER_CHUNK, TEXTS_PER_CHUNK, 7]
    assert [row[0].strip() for chunk in found.chunks() for row in chunk.texts] == lines
    assert (len(found), found.dropped) == (count, {"in validation": 1, "duplicates": 100})
    assert found.is_sampled
    assert len(set(found.sample.texts)) == len(found.sample) == 500
    places = sorted(int(row[0].split()[2]) for row in found.sample.texts)
    assert np.mean(places) == pytest.approx(count / 2, rel=0.1), "drawn from the whole file, evenly"
    more = np.mean([row[0].count("more") for row in found.sample.texts])
    assert more == pytest.approx(2, rel=0.1)
    assert "about 1,234 tokens" in unlabelled_in_words(found, 1234)
    monkeypatch.undo()
    assert find_unlabelled(SINGLE, str(tmp_path / "texts.txt"), OWN).sample.texts != found.sample.texts


def test_the_checksum_is_of_the_texts(tmp_path):
    """Not of the file: where it lies, its format and the parts it is read in change nothing."""
    (tmp_path / "texts.csv").write_text("sentence,label\none,1\ntwo,0\n")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "a.csv").write_text("sentence\none\n")
    (tmp_path / "moved" / "b.csv").write_text("sentence\ntwo\n")
    (tmp_path / "other.csv").write_text("sentence\none\nTwo\n")
    places = ("texts.csv", "moved", "other.csv")
    sums = [find_unlabelled(SINGLE, str(tmp_path / place), OWN).checksum for place in places]
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("change", ["Two", "two more", ""])
def test_texts_that_change_while_the_teacher_is_trained_are_not_taken(tmp_path, change):
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    found = find_unlabelled(SINGLE, str(tmp_path / "texts.txt"), OWN)
    (tmp_path / "texts.txt").write_text(f"one\n{change}\n")
    with pytest.raises(UserError, match=r"texts\.txt was changed since the run began"):
        list(found.chunks())


REFUSED = {
    "nothing there": ("texts.txt", None, "there is no file or folder"),
    "an empty file": ("texts.txt", b"", "is empty; it must hold one text a line"),
    "an empty table": ("texts.csv", b"sentence\n", "is empty"),
    "white space alone": ("texts.txt", b" \n\n\t\n", r"holds no text that can be used \(3 blank\)"),
    "known texts alone": ("texts.txt", b"Seen there\nin train\n", r"\(1 in validation, 1 in train\)"),
    "zeros": ("texts.txt", b"one\ntwo\0\n", "line 2 holds a NUL character"),
    "a picture": ("texts.txt", b"\x89PNG\r\n\x1a\n\xff\x00\x9d\x81" * 9, "is not UTF-8 text"),
    "gzip by another name": ("texts.txt", gzip.compress(b"one"), "looks like gzip"),
    "no gzip": ("texts.txt.gz", b"one\ntwo\n", "cannot read .*texts.txt.gz"),
    "torn gzip": ("texts.txt.gz", gzip.compress(b"one\n" * 999)[:-9], "cannot read .*write or fetch it again"),
    "one endless line": ("texts.txt", b"word " * 300_000, "line 1 holds more than 1,000,000 letters"),
    "an Excel file": ("texts.xlsx", b"PK\x03\x04", "is an Excel file, none of txt, parquet"),
    "a strange format": ("texts.doc", b"one", "is none of txt, parquet, jsonl, csv, tsv; save it"),
    "other columns": (
        "texts.csv",
        b"text,label\na,1\n",
        "no column 'sentence'; .* text, label; .*'sentence', or give",
    ),
    "numbers": ("texts.jsonl", b'{"sentence": 7}', "holds int64 values, not text"),
    "torn parquet": ("texts.parquet", FORMS["texts.parquet"][:-20], "texts.parquet"),
    "broken JSON": ("texts.jsonl", b'{"sentence": "a"}\n{"sent', "line 2 is not JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(name, tmp_path):
    file, content, message = REFUSED[name]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        used(SINGLE, tmp_path / file)
    line = str(refusal.value)
    assert line.startswith("data.unlabelled: ")
    assert line.count("data.unlabelled") == 1
    assert file in line
    assert "\n" not in line


def test_single_texts_for_a_task_of_pairs_are_refused(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"one text a line, and task mrpc reads pairs; .* 'sentence1' and 'sentence2'"):
        used(PAIR, tmp_path / "texts.txt")
    (tmp_path / "half.csv").write_text("sentence1\none\n")
    with pytest.raises(
        UserError, match=r"no column 'sentence2'; .* reads 'sentence1' and 'sentence2', both are needed"
    ):
        used(PAIR, tmp_path / "half.csv")


def test_folders_without_texts_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no texts .*gz\)$"):
        used(SINGLE, tmp_path)
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match=r"holds no texts .*; report\.pdf is a page or a document"):
        used(SINGLE, tmp_path)
    (tmp_path / "report.pdf").unlink()
    (tmp_path / "texts.txt").touch()
    with pytest.raises(UserError, match=r"; texts\.txt is empty"):
        used(SINGLE, tmp_path)
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.csv").write_text("text\nno such column\n")
    with pytest.raises(UserError, match=r"b\.csv has no column 'sentence'"):
        used(SINGLE, tmp_path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt is no regular file"):
        used(SINGLE, tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"^data\.unlabelled: "):
        used(SINGLE, Path("x" * 5000))
