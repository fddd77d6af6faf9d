"""The text of a language model: which files are meant, how an end is cut off, and what is refused."""

import gzip
import hashlib

import numpy as np
import pytest

from distill.config.data_schema import DataConfig
from distill.data.splits import data_checksums
from distill.data.text_corpus import load_text
from distill.data.text_parts import cut_end, open_part
from distill.utils.errors import UserError

LINES = "".join(f"line number {number} of the text\n" for number in range(200))


def texts_of(place, **settings):
    splits = load_text(DataConfig(dir=str(place), **settings))
    return ["".join(part) for part in (splits.text.train, splits.text.held_out, splits.text.validation)]


def test_one_file_is_cut_in_three_behind_lines(tmp_path):
    file = tmp_path / "book.txt"
    file.write_text(LINES)
    train, held_out, validation = texts_of(file, validation_fraction=0.2, held_out_fraction=0.1)
    assert train + held_out + validation == LINES
    assert all(part.endswith("\n") for part in (train, held_out))
    assert 0.15 < len(validation) / len(LINES) < 0.22
    assert 0.05 < len(held_out) / len(train + held_out) < 0.12


@pytest.mark.parametrize("name", ["validation.txt", "valid.txt", "dev.txt", "validation.txt.gz", "validation_raw.txt"])
@pytest.mark.parametrize("inner", ["", "text"])
def test_a_folder_has_a_file_for_each(tmp_path, name, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    (folder / "train.txt").write_text(LINES)
    write = gzip.open if name.endswith(".gz") else open
    with write(folder / name, "wt") as file:
        file.write("other text\n")
    train, held_out, validation = texts_of(tmp_path)
    assert train + held_out == LINES
    assert validation == "other text\n"


def test_a_text_without_lines_is_cut_anywhere(tmp_path):
    (tmp_path / "text.txt").write_text("x" * 100)
    first, second = cut_end(open_part(tmp_path / "text.txt"), 0.1)
    assert (len(first), len(second)) == (90, 10)


def test_a_long_text_is_looked_at_as_a_short_one_is(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.data.text_parts.CHARACTERS_PER_READ", 10)
    file = tmp_path / "text.txt"
    file.write_text("x" * 80 + "\n" + "y" * 19)
    first, second = cut_end(open_part(file), 0.35)  # the line ends 16 characters behind the place
    assert (len(first), len(second)) == (81, 19)
    first, second = cut_end(open_part(file), 0.5)  # and here 31, more than half of what is cut off
    assert (len(first), len(second)) == (50, 50)
    file.write_text("words\n" + " " * 100)
    assert len(open_part(file)) == 106
    file.write_bytes(b"words" * 10 + b"\0")
    with pytest.raises(UserError, match="a NUL character, the 51th"):
        open_part(file)


def test_a_text_is_known_by_the_checksum_that_it_had_before_it_was_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.data.text_parts.CHARACTERS_PER_READ", 50)
    (tmp_path / "text.txt").write_text(LINES)
    splits = load_text(DataConfig(dir=str(tmp_path / "text.txt")))
    train = "".join(splits.text.train)
    one_example = np.zeros(2, np.int64).tobytes() + train.encode() + b"\0"
    assert data_checksums(splits)["data of train"] == hashlib.sha256(one_example).hexdigest()
    assert set(data_checksums(splits)) == {"data of train", "data of held-out train", "data of validation"}


def test_other_encodings_are_read(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(LINES.replace("line", "Zeile Übung"), encoding="utf-16")
    assert texts_of(file)[0].startswith("Zeile Übung number 0")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; give a file with text"),
        (b" \n\n", "is empty; give a file with text"),
        (b"words\0words" * 40, "NUL character"),
        (b"\x81\x8d\x8f\xff" * 50, "is not UTF-8 text"),
        (gzip.compress(LINES.encode()), "it looks like gzip"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(tmp_path, content, said):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(UserError) as refused:
        texts_of(file)
    assert said in str(refused.value)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_or_doubtful_file_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no file or folder"):
        texts_of(tmp_path / "nothing")
    (tmp_path / "readme.txt").write_text(LINES)
    with pytest.raises(UserError, match=r"has no train\.txt, there is readme\.txt"):
        texts_of(tmp_path)
    for name in ("train_small.txt", "train_large.txt"):
        (tmp_path / name).write_text(LINES)
    with pytest.raises(UserError, match=r"train_large\.txt, train_small\.txt, and one of them must be train"):
        texts_of(tmp_path)
    with pytest.raises(UserError, match="needs a text file"):
        load_text(DataConfig())
