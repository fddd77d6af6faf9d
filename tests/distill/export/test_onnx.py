"""A student that attends short texts exactly is one ONNX graph, whose condition is the length of each text."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from helpers.small_students import SIZES, student

from distill.export.onnx import OnnxClassifier, export_onnx
from students import StudentForSequenceClassification

LIMIT, LAYERS = 8, SIZES["num_hidden_layers"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudentForSequenceClassification, Path]:
    model = student(attention="performer", exact_up_to=LIMIT, softmax_layers=[-1], num_features=8)
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_onnx(model, path)
    return model, path


def test_there_is_one_condition_in_the_graph(exported) -> None:
    _, path = exported
    operations = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert operations.count("If") == 1, "one for the layer that estimates, none for the exact one"


def operations_of(graph: onnx.GraphProto) -> Iterator[str]:
    """Those in the branches of conditions too."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from operations_of(attribute.g)


def test_layer_norms_and_gelu_are_one_operation_and_attention_is_four(exported) -> None:
    _, path = exported
    counts = Counter(operations_of(onnx.load(str(path)).graph))
    assert counts["LayerNormalization"] == 1 + 2 * LAYERS
    assert counts["Gelu"] == LAYERS
    slow = {"IsNaN", "ReduceLogSumExp", "Erf", "ReduceMean"}
    assert not slow & set(counts), "what onnxruntime takes a tenth to a sixth of a student's time for"
    # Softmax attention stands in the last layer and in two branches of the other, FAVOR+ with its two in two.
    assert counts["Softmax"] == 3 + 2 * 2


@pytest.mark.parametrize("lengths", [[8, 3, 1], [12, 9, 20], [12, 5, 8], [4]])
def test_short_long_and_mixed_batches_agree(exported, lengths: list[int]) -> None:
    model, path = exported
    width = max(lengths)
    tokens = torch.randint(1, 50, (len(lengths), width), generator=torch.Generator().manual_seed(width))
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": torch.zeros_like(tokens)}
    with torch.no_grad():
        expected = model(**inputs).logits
    torch.testing.assert_close(OnnxClassifier(path)(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
