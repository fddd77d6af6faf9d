"""An exported file with int8 weights, and which of its layers stay in fp32 because the answers would suffer.

Shapes: n examples, C labels.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from distill.data.batching import TokenizedExamples, spread, subset
from distill.evaluation.predict import predict_logits
from distill.export.formats import FileFormat
from distill.export.onnx import OnnxClassifier
from distill.export.onnx_layers import layers_of

ALLOWED_FALL = 0.005
"""By how much a metric may fall on texts of train that were held out: half a point."""
MOST_TEXTS = 1000
"""So many of these are read to measure the fall."""
CALIBRATION_TEXTS = 300
"""So many texts of train tell the range of every activation, where scales are fixed."""
FEW_TEXTS = 64
"""So many are read to find out how far a layer moves the logits."""


@dataclass(frozen=True)
class Int8Texts:
    """Texts of train by which int8 weights are made and judged; validation is only ever reported."""

    calibration: TokenizedExamples
    """What the student was trained on: for scales of activations, where these are fixed."""
    held_out: TokenizedExamples
    """What it was not trained on: the judge."""
    metrics: Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
    """Of logits (n, C) and labels, each the better the higher."""


def choose_fp32_layers(path: Path, folder: Path, texts: Int8Texts, form: FileFormat) -> tuple[str, ...]:
    """Return the layers that have to stay in fp32 for no metric to fall by more than half a point, worst first.

    Where int8 everywhere costs more, each layer is quantised alone. The further it then moves the logits, the earlier
    it is left in fp32; how many have to be is searched for.

    Args:
        path: the ONNX file in fp32.
        folder: for copies that are tried.
        texts: what is measured.
        form: what becomes int8.
    """
    examples = subset(texts.held_out, spread(len(texts.held_out), MOST_TEXTS))
    few = spread(len(examples), FEW_TEXTS)
    trial = folder / f"trial{form.suffix}"

    def answers(read: TokenizedExamples, in_fp32: Collection[str]) -> np.ndarray:
        form.quantize(path, trial, in_fp32, texts.calibration)
        return _predict(form.load(trial), read)

    some = subset(examples, few)

    expected = _predict(OnnxClassifier(path), examples)
    before = texts.metrics(expected, examples.labels)

    def holds(in_fp32: Collection[str]) -> bool:
        logits = answers(examples, in_fp32)
        after = texts.metrics(logits, examples.labels) if np.isfinite(logits).all() else {}
        return all(before[name] - after.get(name, -np.inf) <= ALLOWED_FALL for name in before)

    if holds(()):
        return ()
    layers = layers_of(path)
    moved = {layer: float(np.square(answers(some, set(layers) - {layer}) - expected[few]).mean()) for layer in layers}
    worst_first = sorted(layers, key=lambda layer: np.nan_to_num(moved[layer], nan=np.inf), reverse=True)
    too_few, enough = 0, len(layers)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if holds(worst_first[:middle]) else (middle, enough)
    return tuple(worst_first[:enough])


def _predict(model: nn.Module, examples: TokenizedExamples) -> np.ndarray:
    return predict_logits(model, examples, device="cpu", alone=True)
