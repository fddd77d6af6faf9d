"""An exported file with int8 weights, and which of its layers stay in fp32 because the answers would suffer.

Shapes: n examples, C labels.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax
from torch import nn

from distill.data.batching import TokenizedExamples, spread, subset
from distill.evaluation.metrics import probabilities
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
LABELLINGS = 50
"""So often a text gets a label that is drawn from the probabilities of the student in fp32."""


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

    The fall is the expected one, over labels drawn from what the student in fp32 holds for likely: by the labels that
    a few hundred texts happen to have, one answer between two near equals costs as much as a wrong one. It is right as
    far as the student's probabilities are; one surer than it is right leaves more layers in fp32. Where int8
    everywhere costs more, each layer is quantised alone. The further it then moves the logits, the earlier it is left
    in fp32; how many have to be is searched for.

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

    some, expected = subset(examples, few), _predict(OnnxClassifier(path), examples)
    labellings = draw_labellings(expected, examples.labels)

    def expected_metrics(logits: np.ndarray) -> dict[str, float]:
        found = [texts.metrics(logits, labels) for labels in labellings]
        return {name: float(np.mean([each[name] for each in found])) for name in found[0]}

    before = expected_metrics(expected)

    def holds(in_fp32: Collection[str]) -> bool:
        logits = answers(examples, in_fp32)
        after = expected_metrics(logits) if np.isfinite(logits).all() else {}
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


def draw_labellings(logits: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return labels as a model's probabilities have them, drawn again and again; of scores the true ones, once.

    Args:
        logits: (n, C), finite.
        labels: int64 (n,) classes, float32 (n,) scores or float32 (n, C) of 0 and 1, which tells what is drawn.
    """
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.floating):
        return [labels]
    generator = np.random.default_rng(0)
    if labels.ndim == 2:
        likely = probabilities(logits)
        return [(generator.random(likely.shape) < likely).astype(labels.dtype) for _ in range(LABELLINGS)]
    up_to = softmax(logits.astype(np.float64), axis=1).cumsum(axis=1)[:, :-1]  # the last class takes what is left
    return [(generator.random((len(logits), 1)) >= up_to).sum(axis=1).astype(labels.dtype) for _ in range(LABELLINGS)]


def _predict(model: nn.Module, examples: TokenizedExamples) -> np.ndarray:
    return predict_logits(model, examples, device="cpu", alone=True)
