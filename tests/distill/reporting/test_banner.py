"""What is said about the data before a run."""

import dataclasses

import numpy as np
import pytest
from transformers import BertTokenizer

from distill.data.splits import HIDDEN, Examples
from distill.data.tokenization import tokenize
from distill.reporting.banner import MAX_CLASSES, data_banner
from distill.tasks import custom_task

TOKENIZER = BertTokenizer(
    vocab={word: index for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"))}
)
TASK = custom_task(["text"], "label", ["ham", "spam"], False)


def tokens(texts, labels):
    examples = Examples(np.arange(len(texts)), [(text,) for text in texts], np.asarray(labels))
    return tokenize(examples, TOKENIZER, 8)


def row(lines, name):
    """Return the cells of the rows that begin with a name."""
    return [[cell.strip() for cell in line.split("  ") if cell] for line in lines if line.split("  ")[0] == name]


def test_rows_tokens_and_classes():
    train = tokens(["a"] * 6 + ["a b a"] * 13 + ["a " * 50], [0] * 15 + [1] * 5)
    validation = tokens(["a b", "a x"], [1, 0])
    lines = data_banner(TASK, {"train": train, "validation": validation}, TOKENIZER, 8)
    assert row(lines, "train") == [["train", "20", "5", "5", "5.0 %", "0.0 %"]]
    assert row(lines, "validation") == [["validation", "2", "4", "4", "0.0 %", "25.0 %"]]
    assert row(lines, "ham") == [["ham", "75.0 % (15)", "50.0 % (1)"]]
    assert row(lines, "spam") == [["spam", "25.0 % (5)", "50.0 % (1)"]]
    assert not any("warning" in line for line in lines)
    assert all("\n" not in line for line in lines)


def test_what_fits_exactly_is_not_cut():
    part = tokens(["a " * 6, "a " * 7], [0, 1])
    assert part.lengths.tolist() == [8, 8]
    assert part.num_cut == 1


def test_much_that_is_cut_or_unknown_is_warned_of():
    train = tokens(["a"] * 9 + ["a " * 50], [0, 1] * 5)
    (warning,) = [line for line in data_banner(TASK, {"train": train}, TOKENIZER, 8) if "warning" in line]
    assert "10.0 % of the texts are longer than 8 tokens" in warning
    assert "data.max_length" in warning
    train = tokens(["a b a b x"] * 10, [0, 1] * 5)
    (warning,) = [line for line in data_banner(TASK, {"train": train}, TOKENIZER, 8) if "warning" in line]
    assert "20.0 % of the tokens are unknown" in warning
    assert "teacher.checkpoint" in warning


def test_a_small_split_that_is_all_cut_or_unknown_is_named():
    train = tokens(["a"] * 100, [0, 1] * 50)
    lines = data_banner(TASK, {"train": train, "validation": tokens(["a " * 50] * 4, [0, 1] * 2)}, TOKENIZER, 8)
    assert [line for line in lines if "100.0 % of the texts of validation are longer" in line]
    lines = data_banner(TASK, {"train": train, "validation": tokens(["x"] * 4, [0, 1] * 2)}, TOKENIZER, 8)
    assert [line for line in lines if "100.0 % of the tokens of validation are unknown" in line]


def test_scores():
    task = custom_task(["text"], "stars", None, True)
    train = tokens(["a"] * 4, np.array([1, 2, 3, 4], np.float32))
    lines = data_banner(task, {"train": train}, TOKENIZER, 8)
    assert row(lines, "train")[1] == ["train", "2.5", "1.118", "1", "4"]


@pytest.mark.parametrize("extra", [0, 20])
def test_of_many_classes_the_most_frequent_are_shown(extra):
    count = MAX_CLASSES + extra
    task = custom_task(["text"], "label", [f"class {index}" for index in range(count)], False)
    train = tokens(["a"] * (count + 1), [*range(count), count - 1])
    lines = data_banner(task, {"train": train}, TOKENIZER, 8)
    shown = [line for line in lines if line.startswith("class ") and "%" in line]
    assert len(shown) == (MAX_CLASSES - 1 if extra else MAX_CLASSES)
    assert shown[0 if extra else -1].startswith(f"class {count - 1} ")
    others = row(lines, "21 others")
    assert others == ([["21 others", f"{100 * 21 / 33:.1f} % (21)"]] if extra else [])


def test_names_from_a_file_move_no_cursor_and_fill_no_line():
    task = custom_task(["text"], "label", ["\x1b[2Jbad", "x" * 500], False)
    lines = data_banner(task, {"train": tokens(["a", "b"], [0, 1])}, TOKENIZER, 8)
    assert not any("\x1b" in line or len(line) > 119 for line in lines)


def test_unlabelled_texts_have_no_classes():
    train, other = tokens(["a", "b"], [0, 1]), tokens(["a"], [HIDDEN])
    lines = data_banner(TASK, {"train": train, "other tasks": other}, TOKENIZER, 8, "columns found: …")
    assert lines[0] == "columns found: …"
    assert row(lines, "other tasks")[0][1] == "1"
    assert row(lines, "ham") == [["ham", "50.0 % (1)"]]


def test_a_sample_stands_for_all_rows():
    splits = {"train": tokens(["a", "b"], [0, 1]), "without labels": tokens(["a b c"] * 3, [HIDDEN] * 3)}
    lines = data_banner(TASK, splits, TOKENIZER, 8, rows={"without labels": 1_000_000})
    assert row(lines, "without labels")[0][1] == "1,000,000"
    assert row(lines, "train")[0][1] == "2"


def test_tokens_that_hold_no_text():
    part = dataclasses.replace(tokens(["a"], [0]), token_ids=np.array([2, 3, 3], np.int32))
    assert row(data_banner(TASK, {"train": part}, TOKENIZER, 8), "train")[0][-1] == "0.0 %"
