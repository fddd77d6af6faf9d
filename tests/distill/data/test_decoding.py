"""Tokens put back into texts, of tokenizers with and without token types."""

import numpy as np
import pytest
from helpers.tiny_teachers import tiny_teacher
from transformers import AutoTokenizer

from distill.data.decoding import decode
from distill.data.splits import Examples
from distill.data.tokenization import tokenize, train_tokenizer

TEXTS = ["a good film", "no plot at all", "bad"]
PAIRS = [("a good film", "no plot"), ("bad", "a film"), ("bad", "")]


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def tokenizer(request, tmp_path_factory):
    if request.param == "bert":
        return train_tokenizer(TEXTS, 80)
    return AutoTokenizer.from_pretrained(tiny_teacher("modernbert", TEXTS, tmp_path_factory.mktemp("modernbert")))


@pytest.mark.parametrize("rows", [[(text,) for text in TEXTS], PAIRS], ids=["texts", "pairs"])
def test_what_was_tokenised_comes_back(rows, tokenizer):
    examples = tokenize(Examples(np.arange(3), rows, np.array([0, 1, 0])), tokenizer, 32)
    chosen = np.array([2, 0])
    found = decode(examples, chosen, tokenizer, len(rows[0]))
    assert [tuple(text.strip() for text in row) for row in found.texts] == [rows[2], rows[0]]
    assert found.ids.tolist() == [2, 0]


def test_what_is_not_known_is_left_out():
    tokenizer = train_tokenizer(TEXTS, 80)
    examples = tokenize(Examples(np.arange(1), [("a good 数 film",)], np.zeros(1, np.int64)), tokenizer, 32)
    assert decode(examples, np.arange(1), tokenizer, 1).texts == [("a good film",)]
