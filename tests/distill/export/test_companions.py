"""What stands beside an exported file."""

import pytest
from helpers.tiny_teachers import tiny_teacher
from tokenizers import Tokenizer

from distill.export.companions import companions_of
from distill.models.loading import load_classifier


@pytest.mark.parametrize(("family", "positions"), [("modernbert", 64), ("xlnet", None)])
def test_the_tokenizer_cuts_where_the_model_does(family, positions, tmp_path):
    loaded = load_classifier(tiny_teacher(family, ["a good film", "dull"], tmp_path / family), "student")
    files = companions_of(tmp_path / "student.onnx", loaded.model, loaded.tokenizer)
    tokenizer = Tokenizer.from_str(files[tmp_path / "student.tokenizer.json"])
    assert (tokenizer.truncation or {}).get("max_length") == positions
    assert len(tokenizer.encode("a good film " * 100).ids) >= 64
    assert (len(tokenizer.encode("a good film " * 100).ids) == 64) == (positions == 64)
