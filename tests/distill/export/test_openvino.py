"""A student as an OpenVINO model: it answers as in torch, its layers are int8 but for those that are named."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.closeness import assert_close
from helpers.small_students import student

from distill.data.batching import TokenizedExamples
from distill.evaluation.predict import predict_logits
from distill.export.deployment import deploy_file, largest_difference, move, predict_validation
from distill.export.formats import FORMATS
from distill.export.int8 import Int8Texts
from distill.export.onnx import export_onnx
from distill.export.onnx_layers import layers_of
from distill.export.openvino import OpenvinoClassifier, in_words, quantize_openvino
from distill.utils.errors import UserError

openvino: ModuleType = pytest.importorskip("openvino", reason="an extra: pip install openvino nncf")
pytest.importorskip("nncf", reason="an extra: pip install openvino nncf")
LAYER = "bert.encoder.layer.0.intermediate.dense"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with a condition on the length of a text, as an ONNX file."""
    path = tmp_path_factory.mktemp("openvino") / "student.onnx"
    export_onnx(student(attention="performer", num_features=8, exact_up_to=6), path)
    return path


def int8_matrices(path: Path) -> int:
    constants = [each for each in openvino.Core().read_model(path).get_ops() if each.get_type_name() == "Constant"]
    return sum(each.get_element_type() == openvino.Type.i8 and len(each.shape) == 2 for each in constants)


def predict(path: Path, examples: TokenizedExamples, batch_size: int = 8) -> np.ndarray:
    return predict_logits(OpenvinoClassifier(path), examples, device="cpu", alone=True, batch_size=batch_size)


@pytest.mark.parametrize("exact_up_to", [0, 6])
def test_both_files_answer_as_the_student_does(exact_up_to, make_examples, tmp_path):
    """Texts on both sides of the length up to which they are attended exactly, in batches of both."""
    model = student(attention="performer", num_features=8, exact_up_to=exact_up_to)
    validation = {"validation": make_examples(24)}
    expected = predict_validation(model, validation)
    # Scales of the very texts: those of others leave a tiny random student, whose ranges are wide, further off.
    texts = Int8Texts(validation["validation"], make_examples(20), lambda logits, labels: {})
    output = tmp_path / "student.xml"
    full, small = deploy_file(model, output, FORMATS["openvino"], validation, expected, int8=texts)
    names = {"student.xml", "student.bin", "student.int8.xml", "student.int8.bin"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert largest_difference(expected, full.logits) < 1e-4
    error = np.linalg.norm(small.logits["validation"] - expected["validation"])
    assert 1e-4 < error / np.linalg.norm(expected["validation"]) < 0.25
    assert full.megabytes == sum((tmp_path / f"student{end}").stat().st_size for end in (".xml", ".bin")) / 1e6
    assert_close(predict_validation(full.load(), validation)["validation"], full.logits["validation"])


def test_layers_that_are_named_stay_in_fp32(exported, make_examples, tmp_path):
    every = layers_of(exported)
    for name, in_fp32, count in (("all", (), len(every)), ("some", (LAYER,), len(every) - 1), ("none", every, 0)):
        quantize_openvino(exported, tmp_path / f"{name}.xml", in_fp32, make_examples(8))
        assert int8_matrices(tmp_path / f"{name}.xml") == count, name


def test_the_same_texts_give_the_same_weights(exported, make_examples, tmp_path):
    written = []
    for name in ("first", "second"):
        quantize_openvino(exported, tmp_path / f"{name}.xml", (), make_examples(8))
        written.append((tmp_path / f"{name}.bin").read_bytes())
    assert written[0] == written[1]


def test_an_int8_answer_does_not_depend_on_its_batch(exported, make_examples, tmp_path):
    quantize_openvino(exported, tmp_path / "it.xml", (), make_examples(8))
    examples = make_examples(12)
    assert_close(predict(tmp_path / "it.xml", examples, 1), predict(tmp_path / "it.xml", examples, 12))


def test_texts_without_token_types_calibrate(exported, make_examples, tmp_path):
    """Tokenizers of RoBERTa and its like give none."""
    quantize_openvino(exported, tmp_path / "it.xml", (), replace(make_examples(8), token_types=False))
    assert int8_matrices(tmp_path / "it.xml") == len(layers_of(exported))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("Check failed: basic_ios::clear: iostream error"), OSError, "disk"),
        (RuntimeError("std::bad_alloc"), MemoryError, "out of memory"),
        (ValueError("no such operation\nmore"), UserError, "cannot take it: ValueError: no such operation more"),
        (UserError("as it is"), UserError, "^as it is$"),
    ],
)
def test_what_libraries_raise_is_said_in_words(error, kind, words):
    with pytest.raises(kind, match=words), in_words("OpenVINO cannot take it"):
        raise error


def test_a_text_longer_than_the_positions_is_no_empty_answer(exported, tmp_path):
    FORMATS["openvino"].convert(exported, tmp_path / "it.xml")
    ids = torch.full((1, 40), 7)
    with pytest.raises(UserError, match="OpenVINO"):
        OpenvinoClassifier(tmp_path / "it.xml")(ids, torch.ones_like(ids))


def test_a_loaded_model_outlives_its_file(exported, make_examples, tmp_path):
    """A second export replaces both files while the first one may still be in use."""
    form, examples = FORMATS["openvino"], make_examples(6)
    form.convert(exported, tmp_path / "first.xml")
    loaded = form.load(tmp_path / "first.xml")
    before = predict_logits(loaded, examples, device="cpu", alone=True)
    for part in form.parts(tmp_path / "first.xml"):
        part.write_bytes(b"")
    np.testing.assert_array_equal(predict_logits(loaded, examples, device="cpu", alone=True), before)


def test_the_older_graph_goes_before_its_weights_change(tmp_path, monkeypatch):
    """A graph reads the weights that lie beside it: killed in between, an export leaves none that fits others."""
    form = FORMATS["openvino"]
    new, old = form.parts(tmp_path / "new.xml"), form.parts(tmp_path / "old.xml")
    for part in (*new, *old):
        part.write_text(part.stem)
    new[1].unlink()  # so that the second move fails
    with pytest.raises(OSError, match=r"new\.xml"):
        move(new, old)
    assert [path.name for path in tmp_path.iterdir()] == ["old.bin"]
