"""Teachers and students of every family in ONNX Runtime: the same inputs, the same logits."""

import numpy as np
import onnxruntime
import pytest
import torch
from helpers.families import tiny_classifier

from distill.data.batching import MODEL_INPUTS, TokenizedExamples
from distill.export.deployment import deploy_file, largest_difference, predict_validation
from distill.export.formats import FORMATS
from distill.export.fused_onnx import export_fused, quantize_fused
from distill.export.int8 import Int8Texts
from distill.export.onnx import OnnxClassifier
from distill.models.windowed_bert import reading_windows
from students import student_from_teacher
from students.families import FAMILIES

over_families = pytest.mark.parametrize("kind", FAMILIES)


@pytest.fixture
def validation_of(make_examples):
    """Return a function that gives examples whose padding and token types are those of a model."""

    def make(model) -> dict[str, TokenizedExamples]:
        examples = make_examples(20)
        examples.token_type_ids[:] *= getattr(model.config, "type_vocab_size", 0) > 1
        object.__setattr__(examples, "pad_token_id", model.config.pad_token_id)
        return {"validation": examples}

    return make


@over_families
def test_the_fusions_apply_to_a_teacher_and_change_no_logit(kind, validation_of, tmp_path):
    teacher = reading_windows(tiny_classifier(kind, vocab_size=60)).eval()
    validation = validation_of(teacher)
    fused = export_fused(teacher, tmp_path / "fused.onnx")
    assert fused["Attention"] >= 1
    expected, got = (
        predict_validation(model, validation, alone=True)
        for model in (teacher, OnnxClassifier(tmp_path / "fused.onnx"))
    )
    assert largest_difference(expected, got) < 1e-4
    quantize_fused(tmp_path / "fused.onnx", tmp_path / "int8.onnx")
    small = predict_validation(OnnxClassifier(tmp_path / "int8.onnx"), validation, alone=True)
    assert np.isfinite(largest_difference(expected, small))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "albert"])  # in which its embeddings and head differ
def test_a_students_file_takes_the_three_inputs(kind, validation_of, tmp_path):
    teacher = tiny_classifier(kind, vocab_size=60)
    student = student_from_teacher(teacher, layer_map=[0, 1], attention="performer", num_features=8)[0].eval()
    validation = validation_of(teacher)
    expected = predict_validation(student, validation)
    output = tmp_path / "student.onnx"
    texts = Int8Texts(validation["validation"], validation["validation"], lambda logits, labels: {})
    full, small = deploy_file(student, output, FORMATS["onnx"], validation, expected, int8=texts)
    assert largest_difference(expected, full.logits) < 1e-4
    assert np.isfinite(largest_difference(expected, small.logits))
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == list(MODEL_INPUTS)
    ids = torch.full((2, 32), 7)  # all positions, which the examples have not
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        logits = student(**inputs).logits
    (got,) = session.run(["logits"], {name: values.numpy() for name, values in inputs.items()})
    assert np.abs(got - logits.numpy()).max() < 1e-4
