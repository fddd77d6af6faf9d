"""What the tests of teachers share."""

import pytest
from transformers import BertModel

from distill.data.tokenization import train_tokenizer
from teachers.loading import freeze

TEXTS = ["a good film", "a bad film", "no plot at all"]


@pytest.fixture
def teacher(make_bert):
    return freeze(make_bert(num_layers=3))


@pytest.fixture
def examples(make_examples):
    return make_examples(30)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 55)


@pytest.fixture
def finished(make_bert, tokenizer, tmp_path):
    """A folder with a finished classifier of two labels."""
    make_bert().save_pretrained(tmp_path / "finished")
    tokenizer.save_pretrained(tmp_path / "finished")
    return tmp_path / "finished"


@pytest.fixture
def encoder(make_bert, tokenizer, tmp_path):
    """A folder with an encoder that has neither classifier nor pooler, as masked language models are saved."""
    model = BertModel(make_bert().config, add_pooling_layer=False)
    model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"
