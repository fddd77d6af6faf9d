"""Which layers of an exported file stay in fp32: those that int8 harms, found on the examples that are given."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.small_students import SIZES, student

from distill.data.batching import TokenizedExamples, subset
from distill.evaluation.predict import predict_logits
from distill.export import int8
from distill.export.formats import FORMATS
from distill.export.int8 import ALLOWED_FALL, Int8Texts, choose_fp32_layers, draw_labellings
from distill.export.onnx import OnnxClassifier, export_onnx
from distill.export.onnx_layers import layers_of, quantize_onnx

ONNX = FORMATS["onnx"]
HARMED = "bert.encoder.layer.0.attention.output.dense"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student one of whose layers reads one value that is a thousand times as large as all the others."""
    model = student(attention="softmax")
    attention = model.bert.encoder.layer[0].attention
    with torch.no_grad():
        attention.self.value.weight[0] *= 1000
        attention.self.value.bias[0] *= 1000
        attention.output.dense.weight[:, 0] /= 1000
    path = tmp_path_factory.mktemp("int8") / "student.onnx"
    export_onnx(model, path)
    return path


def predict(path: Path, examples: TokenizedExamples) -> np.ndarray:
    return predict_logits(OnnxClassifier(path), examples, device="cpu", alone=True)


def judge(path: Path, examples: TokenizedExamples, tolerance: float) -> Int8Texts:
    """A metric that falls too far where logits move by more than ``tolerance``."""
    expected = predict(path, examples)

    def metrics(logits: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
        assert labels.shape == examples.labels.shape
        return {"unmoved": 1.0, "near": -ALLOWED_FALL * float(np.abs(logits - expected).mean()) / tolerance}

    return Int8Texts(examples, examples, metrics)


def float_matrices(path: Path) -> int:
    weights = onnx.load(str(path)).graph.initializer
    return sum(len(each.dims) == 2 and each.data_type == onnx.TensorProto.FLOAT for each in weights)


def test_the_layers_are_all_linear_maps_and_embeddings(exported):
    names = layers_of(exported)
    assert len(names) == 3 + 6 * SIZES["num_hidden_layers"] + 2
    assert {HARMED, "bert.embeddings.word_embeddings", "bert.pooler.dense", "classifier"} <= set(names)


def test_what_a_metric_bears_is_int8_everywhere(exported, make_examples, tmp_path):
    assert choose_fp32_layers(exported, tmp_path, judge(exported, make_examples(20), tolerance=1e3), ONNX) == ()


def test_the_layer_that_int8_harms_stays_in_fp32(exported, make_examples, tmp_path):
    examples = make_examples(20)
    found = judge(exported, examples, tolerance=0.1)
    chosen = choose_fp32_layers(exported, tmp_path, found, ONNX)
    assert chosen[0] == HARMED
    assert len(chosen) <= 2
    quantize_onnx(exported, tmp_path / "int8.onnx", chosen)
    after = found.metrics(predict(tmp_path / "int8.onnx", examples), examples.labels)
    assert after["near"] >= -ALLOWED_FALL
    assert float_matrices(tmp_path / "int8.onnx") == len(chosen)


def test_a_metric_that_bears_nothing_leaves_fp32(exported, make_examples, tmp_path):
    examples = make_examples(4)
    chosen = choose_fp32_layers(exported, tmp_path, judge(exported, examples, tolerance=1e-9), ONNX)
    assert set(chosen) == set(layers_of(exported))
    quantize_onnx(exported, tmp_path / "int8.onnx", chosen)
    weights = onnx.load(str(tmp_path / "int8.onnx")).graph.initializer
    assert not {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} & {each.data_type for each in weights}


def test_every_output_of_a_linear_map_has_a_scale_of_its_own(exported, tmp_path):
    quantize_onnx(exported, tmp_path / "int8.onnx")
    weights = onnx.load(str(tmp_path / "int8.onnx")).graph.initializer
    scales = [each for each in weights if each.name.endswith("_scale") and len(each.dims) == 1]
    assert sorted({each.dims[0] for each in scales}) == [2, SIZES["hidden_size"], SIZES["intermediate_size"]]


def test_texts_of_a_file_that_is_sorted_by_label_are_of_all_labels(exported, make_examples, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "MOST_TEXTS", 4)
    examples, seen = make_examples(40), []
    examples = subset(examples, np.argsort(examples.labels, kind="stable"))

    def draw(logits: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        seen.append(set(labels))
        return [labels]

    monkeypatch.setattr(int8, "draw_labellings", draw)
    choose_fp32_layers(exported, tmp_path, Int8Texts(examples, examples, lambda *_: {"any": 1.0}), ONNX)
    assert seen == [{0, 1}]


@pytest.mark.parametrize(("falls", "holds"), [((0.009, 0.0), True), ((0.02, 0.0), False)])
def test_what_counts_is_the_mean_over_all_labels_drawn(falls, holds, exported, make_examples, tmp_path, monkeypatch):
    examples = make_examples(4)
    expected, drawn = predict(exported, examples), [np.zeros(4, np.int64), np.ones(4, np.int64)]

    def metrics(logits: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
        return {"any": 1.0 - falls[labels[0]] * (np.abs(logits - expected).max() > 1e-6)}

    monkeypatch.setattr(int8, "draw_labellings", lambda *_: drawn)
    assert (choose_fp32_layers(exported, tmp_path, Int8Texts(examples, examples, metrics), ONNX) == ()) == holds


def test_an_answer_between_two_near_equals_costs_next_to_nothing(monkeypatch):
    """By the true labels of 20 texts one other answer is five points; by those drawn what is lost in the mean."""

    def fall(margin: float) -> float:
        before = np.tile([0.0, 3.0], (20, 1))
        before[0] = [0.0, margin]
        after = np.array(before)
        after[0] = [margin, 0.0]
        drawn = draw_labellings(before, np.zeros(20, np.int64))
        return float(np.mean([accuracy(before, labels) - accuracy(after, labels) for labels in drawn]))

    def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
        return float((logits.argmax(axis=1) == labels).mean())

    monkeypatch.setattr(int8, "LABELLINGS", 4000)
    assert fall(0.02) == pytest.approx(np.tanh(0.01) / 20, abs=0.003)
    assert fall(2.0) == pytest.approx(np.tanh(1.0) / 20, abs=0.003)


def test_labels_are_drawn_as_the_task_has_them():
    logits = np.log(np.tile([0.2, 0.5, 0.3], (500, 1)))
    classes = np.concatenate(draw_labellings(logits, np.zeros(500, np.int64)))
    assert np.bincount(classes) / len(classes) == pytest.approx([0.2, 0.5, 0.3], abs=0.02)
    again = np.concatenate(draw_labellings(logits, np.zeros(500, np.int64)))
    assert (again == classes).all()  # another export of the student finds the same layers
    sets = np.concatenate(draw_labellings(np.tile([-2.0, 0.0, 2.0], (500, 1)), np.zeros((500, 3), np.float32)))
    assert sets.mean(axis=0) == pytest.approx([0.119, 0.5, 0.881], abs=0.02)
    assert set(np.unique(sets)) == {0.0, 1.0}
    scores = np.linspace(0, 5, 500, dtype=np.float32)
    (same,) = draw_labellings(np.zeros((500, 1)), scores)
    assert (same == scores).all()
