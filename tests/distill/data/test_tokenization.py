"""The tokenizer trained at run time: BERT's conventions, determinism, and a round trip through a folder."""

import pytest
from transformers import AutoTokenizer

from distill.data.tokenization import SPECIAL_TOKENS, train_tokenizer

TEXTS = ["The film is not boring .", "although the plot is thin , the film is charming .", "é is an accent !"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 200)


def test_special_tokens_come_first(tokenizer):
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == list(SPECIAL_TOKENS)
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) <= 200


def test_pairs_carry_token_types(tokenizer):
    encoded = tokenizer("the film", "the plot is thin", padding="max_length", max_length=12)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "the", "film", "[SEP]", "the", "plot", "is", "thin", "[SEP]", *["[PAD]"] * 3]
    assert encoded["token_type_ids"] == [0] * 4 + [1] * 5 + [0] * 3
    assert encoded["attention_mask"] == [1] * 9 + [0] * 3


def test_lower_case_and_unknown_characters(tokenizer):
    assert tokenizer.tokenize("THE Film") == ["the", "film"]
    assert tokenizer.tokenize("É") == ["e"]
    assert tokenizer.tokenize("漢") == ["[UNK]"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("숙소 위치는 찾기 쉽고 일반적인 반지하 숙소입니다.", "숙소"),  # syllables would fall into jamo
        ("यह फ़िल्म उबाऊ नहीं है और कहानी अच्छी है", "कहानी"),  # vowel signs would be dropped
        ("がっこう で ともだち が ぎゅうにゅう を のんだ", "がっこう"),  # ga would become ka
        ("หนังเรื่องนี้ไม่น่าเบื่อ", "หนังเรื่องนี้ไม่น่าเบื่อ"),
        ("bộ phim này rất hấp dẫn và đáng xem", "phim"),
    ],
)
def test_marks_that_are_letters_stay(text, word, tmp_path):
    tokenizer = train_tokenizer([text] * 3, 400)
    assert tokenizer.tokenize(word) == [word]
    assert tokenizer.decode(tokenizer(word)["input_ids"], skip_special_tokens=True) == word
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize(word) == [word]


def test_accents_of_a_minority_of_words_are_stripped_as_bert_does_it():
    texts = ["le café est très près de la fenêtre", "der Film ist über alles schön und gut", "한국"]
    assert train_tokenizer(texts, 200).tokenize("CAFÉ") == ["cafe"]


def test_a_word_not_seen_falls_into_pieces(tokenizer):
    pieces = tokenizer.tokenize("charm")
    assert len(pieces) > 1
    assert all(piece.startswith("##") for piece in pieces[1:])


def test_the_vocabulary_size_is_a_limit():
    assert len(train_tokenizer(TEXTS, 50)) <= 50


def test_a_word_that_wordpiece_does_not_read_teaches_nothing(monkeypatch):
    expected = train_tokenizer(TEXTS, 200).get_vocab()
    assert train_tokenizer([*TEXTS, "q" * 101, "z" * 300_000], 200).get_vocab() == expected
    monkeypatch.setattr("distill.data.tokenization.LONGEST_WORD", 101)
    assert train_tokenizer([*TEXTS, "q" * 101], 200).get_vocab() != expected


def test_the_order_of_the_texts_does_not_matter(tokenizer):
    again = train_tokenizer(reversed(TEXTS), 200)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_save_and_auto_load_give_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    pairs = ["The film", "É charm 漢"], ["the plot is thin", "not boring"]
    assert loaded(*pairs, padding=True).data == tokenizer(*pairs, padding=True).data
    assert type(loaded) is type(tokenizer)
