"""Tokenizers and windows of a text: nothing is lost, and every label is the token that it should be."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from distill.config.schema import TEXT_UNITS
from distill.data.batching import collate
from distill.data.labels import HIDDEN
from distill.data.text_tokenizers import text_tokenizer, token_ids, unit_of
from distill.data.text_windows import read_windows
from distill.utils.errors import UserError

TEXT = "The cat sat on the mat .\n\n Ünïcödé 한국어, 3 times!\n" * 30


@pytest.mark.parametrize("unit", ["byte", "character"])
def test_bytes_and_characters_give_the_text_back(unit):
    tokenizer = text_tokenizer(unit, TEXT, 500)
    ids = token_ids(TEXT, tokenizer)
    assert len(ids) == len(TEXT.encode() if unit == "byte" else TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.unk_token_id not in ids


def test_bytes_need_no_text():
    tokenizer = text_tokenizer("byte", "", 10)
    everything = "".join(map(chr, range(1, 2000)))
    assert len(tokenizer) == 256 + 5
    assert tokenizer.decode(token_ids(everything, tokenizer)) == everything


def test_words_stand_between_spaces_and_lines_have_an_end():
    tokenizer = text_tokenizer("word", TEXT, 500)
    tokens = tokenizer.convert_ids_to_tokens(token_ids("The cat  sat\n\nmat .", tokenizer).tolist())
    assert tokens == ["The", "cat", "sat", "\n", "\n", "mat", "."]
    assert token_ids("unheard", tokenizer).tolist() == [tokenizer.unk_token_id]


def test_the_most_frequent_words_are_kept():
    tokenizer = text_tokenizer("word", "a a a b b c\n", 5 + 2)
    assert tokenizer.convert_ids_to_tokens(token_ids("a b c", tokenizer).tolist()) == ["a", "b", "[UNK]"]


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_names_of_special_tokens_are_text_like_any_other(unit):
    text = "a [PAD] b [MASK] c [UNK] .\n" * 20
    tokenizer = text_tokenizer(unit, text, 100)
    ids = token_ids(text, tokenizer)
    assert not set(ids.tolist()) & {tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.cls_token_id}
    assert ids.max() < len(tokenizer)
    assert len(tokenizer.get_vocab()) == len(tokenizer)


def test_words_of_the_vocabulary_are_those_that_the_tokenizer_finds():
    text = "one\ttwo\u00a0three\u3000four\u2028five\x85six\n" * 5
    tokenizer = text_tokenizer("word", text, 100)
    assert tokenizer.unk_token_id not in token_ids(text, tokenizer)


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_nothing_is_added_to_a_prompt(unit):
    tokenizer = text_tokenizer(unit, TEXT, 200)
    assert np.array_equal(tokenizer("The cat")["input_ids"], token_ids("The cat", tokenizer))
    assert unit_of(tokenizer) == unit


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_a_saved_tokenizer_reads_the_same(unit, tmp_path):
    tokenizer = text_tokenizer(unit, TEXT, 200)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert unit_of(again) == unit
    assert np.array_equal(token_ids(TEXT, again), token_ids(TEXT, tokenizer))
    assert np.array_equal(again(TEXT, add_special_tokens=False)["input_ids"], token_ids(TEXT, tokenizer))


def test_long_texts_are_read_in_parts_without_a_trace(monkeypatch):
    whole = token_ids(TEXT, text_tokenizer("character", TEXT, 500))
    monkeypatch.setattr("distill.data.text_tokenizers.CHARACTERS_PER_CALL", 40)
    assert np.array_equal(token_ids(TEXT, text_tokenizer("character", TEXT, 500)), whole)


def windows_of(kind, length=16, **how):
    tokenizer = text_tokenizer("byte", "", 0)
    return read_windows(TEXT, tokenizer, length, kind, name="train", **how), token_ids(TEXT, tokenizer), tokenizer


def test_causal_windows_predict_every_token_but_the_first_once():
    windows, tokens, _ = windows_of("causal", whole=True)
    assert np.array_equal(windows.token_ids, tokens[:-1])
    assert np.array_equal(windows.labels[windows.labels != HIDDEN], tokens[1:])
    assert windows.characters_per_token == pytest.approx(len(TEXT) / len(tokens))


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


def test_masked_windows_hide_what_they_ask_for():
    windows, tokens, tokenizer = windows_of("masked", length=32, whole=True)
    asked = windows.labels != HIDDEN
    rows = [windows.token_ids[start:end] for start, end in zip(windows.offsets, windows.offsets[1:], strict=False)]
    assert all(row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id for row in rows)
    shown = np.concatenate(
        [np.where(a[: len(r)], y[: len(r)], r)[1:-1] for a, y, r in zip(asked, windows.labels, rows, strict=True)]
    )
    assert np.array_equal(shown, tokens)
    hidden = np.concatenate([row[a[: len(row)]] for a, row in zip(asked, rows, strict=True)])
    wanted = windows.labels[asked]
    assert 0.12 < asked.sum() / len(tokens) < 0.18
    assert 0.7 < (hidden == tokenizer.mask_token_id).mean() < 0.9
    assert 0.05 < (hidden == wanted).mean() < 0.17
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert np.array_equal(windows.tokens[~np.isin(windows.tokens, special)], tokens)
    again, _, _ = windows_of("masked", length=32, whole=True)
    assert np.array_equal(again.token_ids, windows.token_ids)


@pytest.mark.parametrize("of_passages", [False, True])
def test_every_pass_masks_other_tokens_of_the_same_text(of_passages):
    windows, _, tokenizer = windows_of("masked", length=32, whole=True, of_passages=of_passages)
    assert windows.in_pass(0) is windows
    passes = [windows.in_pass(number) for number in (0, 1, 2)]
    for one in passes[1:]:
        assert np.array_equal(one.tokens, windows.tokens)
        assert np.array_equal(one.offsets, windows.offsets)
        assert one.token_ids.dtype == windows.token_ids.dtype
        hidden = one.token_ids[one.labels[np.arange(32) < one.lengths[:, None]] != HIDDEN]
        assert 0.7 < (hidden == tokenizer.mask_token_id).mean() < 0.9
    masked = [one.labels != HIDDEN for one in passes]
    both = (masked[0] & masked[1]).sum() / masked[0].sum()
    assert both < 0.3, "drawn anew, a sixth or so by chance"
    assert not np.array_equal(masked[1], masked[2])
    assert np.array_equal(windows.in_pass(1).token_ids, passes[1].token_ids)


def test_causal_windows_are_the_same_in_every_pass():
    windows, _, _ = windows_of("causal")
    assert windows.in_pass(3) is windows


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
    assert np.array_equal(np.sort(windows.tokens[~np.isin(windows.tokens, special)]), np.sort(tokens))


def test_a_text_shorter_than_one_window_is_refused():
    with pytest.raises(
        UserError, match=r"train: the text has [\d,]+ tokens, fewer than one sequence of data.max_length"
    ):
        windows_of("causal", length=5000)
