"""Tokenizers and windows of a text: nothing is lost, and every label is the token that it should be."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from helpers.texts import token_ids
from transformers import AutoTokenizer

from distill.config.schema import TEXT_UNITS
from distill.data.batching import collate
from distill.data.labels import HIDDEN
from distill.data.text_parts import open_part
from distill.data.text_tokenizers import text_tokenizer, unit_of
from distill.data.text_windows import read_windows, stretches
from distill.utils.errors import UserError

TEXT = "The cat sat on the mat .\n\n Ünïcödé 한국어, 3 times!\n" * 30


@pytest.mark.parametrize("unit", ["byte", "character"])
def test_bytes_and_characters_give_the_text_back(unit):
    tokenizer = text_tokenizer(unit, [TEXT], 500)
    ids = token_ids([TEXT], tokenizer)
    assert len(ids) == len(TEXT.encode() if unit == "byte" else TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.unk_token_id not in ids


def test_bytes_need_no_text():
    tokenizer = text_tokenizer("byte", [], 10)
    everything = "".join(map(chr, range(1, 2000)))
    assert len(tokenizer) == 256 + 5
    assert tokenizer.decode(token_ids([everything], tokenizer)) == everything


def test_words_stand_between_spaces_and_lines_have_an_end():
    tokenizer = text_tokenizer("word", [TEXT], 500)
    tokens = tokenizer.convert_ids_to_tokens(token_ids(["The cat  sat\n\nmat ."], tokenizer).tolist())
    assert tokens == ["The", "cat", "sat", "\n", "\n", "mat", "."]
    assert token_ids(["unheard"], tokenizer).tolist() == [tokenizer.unk_token_id]


def test_the_most_frequent_words_are_kept():
    tokenizer = text_tokenizer("word", ["a a a b b c\n"], 5 + 2)
    assert tokenizer.convert_ids_to_tokens(token_ids(["a b c"], tokenizer).tolist()) == ["a", "b", "[UNK]"]


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_names_of_special_tokens_are_text_like_any_other(unit):
    text = "a [PAD] b [MASK] c [UNK] .\n" * 20
    tokenizer = text_tokenizer(unit, [text], 100)
    ids = token_ids([text], tokenizer)
    assert not set(ids.tolist()) & {tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.cls_token_id}
    assert ids.max() < len(tokenizer)
    assert len(tokenizer.get_vocab()) == len(tokenizer)


def test_words_of_the_vocabulary_are_those_that_the_tokenizer_finds():
    text = "one\ttwo\u00a0three\u3000four\u2028five\x85six\n" * 5
    tokenizer = text_tokenizer("word", [text], 100)
    assert tokenizer.unk_token_id not in token_ids([text], tokenizer)


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_nothing_is_added_to_a_prompt(unit):
    tokenizer = text_tokenizer(unit, [TEXT], 200)
    assert np.array_equal(tokenizer("The cat")["input_ids"], token_ids(["The cat"], tokenizer))
    assert unit_of(tokenizer) == unit


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_a_saved_tokenizer_reads_the_same(unit, tmp_path):
    tokenizer = text_tokenizer(unit, [TEXT], 200)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert unit_of(again) == unit
    assert np.array_equal(token_ids([TEXT], again), token_ids([TEXT], tokenizer))
    assert np.array_equal(again(TEXT, add_special_tokens=False)["input_ids"], token_ids([TEXT], tokenizer))


@pytest.fixture
def in_blocks(tmp_path, monkeypatch):
    """The text in a file, which is read in blocks of a line or two."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr("distill.data.text_parts.CHARACTERS_PER_READ", 40)
    part = open_part(tmp_path / "text.txt")
    blocks = list(part)
    assert len(blocks) > 10
    assert all(block.endswith("\n") for block in blocks[:-1])
    assert len(TEXT) / len(blocks) > 30
    return part


def test_long_texts_are_read_in_blocks_without_a_trace(in_blocks):
    for unit in TEXT_UNITS:
        own, other = text_tokenizer(unit, [TEXT], 500), text_tokenizer(unit, in_blocks, 500)
        assert own.get_vocab() == other.get_vocab()
        assert np.array_equal(token_ids([TEXT], own), token_ids(in_blocks, other))


@pytest.mark.parametrize("kind", ["causal", "masked"])
@pytest.mark.parametrize("how", [{"whole": True}, {}, {"most": 5}, {"of_passages": True}])
def test_windows_do_not_depend_on_the_blocks(in_blocks, kind, how):
    tokenizer = text_tokenizer("byte", [], 0)
    one, other = (read_windows(text, tokenizer, 16, kind, name="train", **how) for text in ([TEXT], in_blocks))
    for name in ("token_ids", "token_type_ids", "offsets", "labels", "ids"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.characters_per_token, one.unknown_share) == (other.characters_per_token, other.unknown_share)


def test_passages_of_a_long_text_are_drawn_stretch_by_stretch(monkeypatch):
    monkeypatch.setattr("distill.data.text_windows.TOKENS_TOGETHER", 100)
    windows, tokens, tokenizer = windows_of("masked", length=32, of_passages=True)
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert np.array_equal(np.sort(windows.token_ids[~np.isin(windows.token_ids, special)]), np.sort(tokens))


def windows_of(kind, length=16, **how):
    tokenizer = text_tokenizer("byte", [], 0)
    return read_windows([TEXT], tokenizer, length, kind, name="train", **how), token_ids([TEXT], tokenizer), tokenizer


def read_all(windows):
    """Return what a model reads of all windows, which tokens it has to predict, and where there are any."""
    inputs, labels = collate(windows, np.arange(len(windows)))
    return inputs["input_ids"].numpy(), labels.numpy(), inputs["attention_mask"].bool().numpy()


@pytest.mark.parametrize(
    ("tokens", "more", "found"),
    [
        (6, 0, [[0, 1, 2], [3, 4, 5]]),
        (7, 0, [[0, 1, 2], [3, 4, 5], [6]]),
        (7, 1, [[0, 1, 2, 3], [3, 4, 5, 6]]),
        (8, 1, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]]),
        (1, 1, []),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 5, 100])
def test_stretches_are_the_same_whatever_the_blocks(tokens, more, found, block):
    text = np.arange(tokens)
    blocks = [text[start : start + block] for start in range(0, tokens, block)]
    assert [part.tolist() for part in stretches(blocks, 3, more)] == found


def test_every_token_of_the_vocabulary_is_counted(monkeypatch):
    monkeypatch.setattr("distill.data.text_windows.COUNTED_TOGETHER", 5)
    windows, _, _ = windows_of("causal", whole=True)
    labels = np.array([[0, 3, HIDDEN], [3, 0, 0], [2, HIDDEN, HIDDEN]])
    assert replace(windows, labels=labels).count_tokens(4).tolist() == [3, 0, 1, 2]


def test_causal_windows_predict_every_token_but_the_first_once():
    windows, tokens, _ = windows_of("causal", whole=True)
    assert np.array_equal(windows.token_ids, tokens[:-1])
    assert np.array_equal(windows.labels[windows.labels != HIDDEN], tokens[1:])
    assert windows.characters_per_token == pytest.approx(len(TEXT) / len(tokens))
    assert np.array_equal(windows.count_tokens(300), np.bincount(tokens[1:], minlength=300))


def test_a_last_short_window_is_padded_behind_and_predicts_nothing_there():
    windows, tokens, _ = windows_of("causal", whole=True)
    inputs, labels = collate(windows, np.array([0, len(windows) - 1]))
    rest = (len(tokens) - 1) % 16
    assert 0 < rest < 16
    assert inputs["attention_mask"][1].sum() == rest
    assert (labels[1, rest:] == HIDDEN).all()
    assert labels.shape == inputs["input_ids"].shape


def test_train_has_whole_windows_alone_and_no_more_than_asked_for():
    windows, tokens, _ = windows_of("causal")
    assert set(windows.lengths) == {16}
    assert len(windows) == (len(tokens) - 1) // 16
    few, _, _ = windows_of("causal", most=5, seed=1)
    assert len(few) == 5
    assert set(few.ids) <= set(windows.ids)
    for place, number in enumerate(few.ids):
        assert np.array_equal(few.labels[place], windows.labels[number])


def test_a_window_is_masked_alike_whatever_is_read_beside_it():
    windows, _, _ = windows_of("masked")
    few, _, _ = windows_of("masked", most=5, seed=0)
    everything, wanted, _ = read_all(windows)
    shown, asked, _ = read_all(few)
    assert np.array_equal(shown, everything[few.ids])
    assert np.array_equal(asked, wanted[few.ids])


def test_masked_windows_hide_what_they_ask_for():
    windows, tokens, tokenizer = windows_of("masked", length=32, whole=True)
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert np.array_equal(windows.token_ids[~np.isin(windows.token_ids, special)], tokens)
    shown, wanted, there = read_all(windows)
    assert (shown[:, 0] == tokenizer.cls_token_id).all()
    assert (shown[np.arange(len(windows)), windows.lengths - 1] == tokenizer.sep_token_id).all()
    asked = wanted != HIDDEN
    assert np.array_equal(np.where(asked, wanted, shown)[there], windows.token_ids)
    assert 0.12 < asked.sum() / len(tokens) < 0.18
    assert (asked.sum(1) >= 1).all()
    assert 0.7 < (shown[asked] == tokenizer.mask_token_id).mean() < 0.9
    assert 0.05 < (shown[asked] == wanted[asked]).mean() < 0.17
    again = read_all(windows_of("masked", length=32, whole=True)[0])
    assert np.array_equal(again[0], shown)
    assert np.array_equal(windows.count_tokens(300), np.bincount(windows.token_ids, minlength=300))


@pytest.mark.parametrize("of_passages", [False, True])
def test_every_pass_masks_other_tokens_of_the_same_text(of_passages):
    windows, _, tokenizer = windows_of("masked", length=32, whole=True, of_passages=of_passages)
    passes = [read_all(windows.in_pass(number)) for number in (0, 1, 2)]
    assert np.array_equal(passes[0][0], read_all(windows)[0])
    for shown, wanted, there in passes:
        assert np.array_equal(np.where(wanted != HIDDEN, wanted, shown)[there], windows.token_ids)
        assert 0.7 < (shown[wanted != HIDDEN] == tokenizer.mask_token_id).mean() < 0.9
    masked = [wanted != HIDDEN for _, wanted, _ in passes]
    for one, other in ((0, 1), (1, 2)):
        both = (masked[one] & masked[other]).sum() / masked[one].sum()
        assert both < 0.3, "drawn anew, a sixth or so by chance"
    assert np.array_equal(read_all(windows.in_pass(1))[0], passes[1][0])


def test_causal_windows_are_the_same_in_every_pass():
    windows, _, _ = windows_of("causal")
    assert all(map(np.array_equal, read_all(windows.in_pass(3)), read_all(windows)))


def test_of_passages_the_second_one_has_the_second_token_type():
    windows, tokens, tokenizer = windows_of("masked", length=32, whole=True, of_passages=True)
    assert len(set(windows.lengths.tolist())) > 5
    assert windows.lengths.max() <= 32
    pairs = 0
    for start, end in zip(windows.offsets, windows.offsets[1:], strict=False):
        row, types = windows.token_ids[start:end], windows.token_type_ids[start:end]
        ends = np.flatnonzero(row == tokenizer.sep_token_id)
        assert row[0] == tokenizer.cls_token_id
        assert ends[-1] == len(row) - 1
        assert types.tolist() == [0] * (ends[0] + 1) + [1] * (len(row) - ends[0] - 1)
        pairs += len(ends) == 2
    assert 0 < pairs < len(windows)
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert np.array_equal(np.sort(windows.token_ids[~np.isin(windows.token_ids, special)]), np.sort(tokens))


def test_a_text_shorter_than_one_window_is_refused():
    with pytest.raises(
        UserError, match=r"train: the text has [\d,]+ tokens, fewer than one sequence of data.max_length"
    ):
        windows_of("causal", length=5000)


def test_a_text_takes_disk_and_not_memory(tmp_path):
    size = 2_000_000
    (tmp_path / "text.txt").write_text("the cat sat on the mat .\n" * (size // 25))
    part, tokenizer = open_part(tmp_path / "text.txt"), text_tokenizer("byte", [], 0)
    tracemalloc.start()
    windows = read_windows(part, tokenizer, 128, "causal", name="train", seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(windows.token_ids) > 0.99 * size
    assert peak < 8 * size, "as int64 the tokens and labels alone would be 16 bytes a token"


def test_a_full_disk_is_said_in_one_line(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("distill.data.spooled_arrays.tempfile.TemporaryFile", Full)
    with pytest.raises(UserError, match=r"No space left on device; export TMPDIR=FOLDER with room"):
        windows_of("causal")
