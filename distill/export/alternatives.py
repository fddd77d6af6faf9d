"""What a user would pick instead of the student: how good it is, and how fast beside teacher and student.

Shapes: n examples, C labels.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from distill.benchmark.conditions import Models
from distill.data.batching import TokenizedExamples, median_length
from distill.evaluation import significance
from distill.evaluation.comparison import ComparisonSetup
from distill.evaluation.metrics import HALF, metrics_over_splits, predictions
from distill.evaluation.predict import predict_logits
from distill.evaluation.quality import retention_over_splits
from distill.evaluation.record_parts import AlternativeEntry
from distill.evaluation.thresholds import Thresholds, thresholds_of
from distill.export.alternative_speed import UNLIMITED, Alternative, Splits, measure_alternative_speed
from distill.export.deployment import largest_difference, predict_extremes, predict_validation
from distill.export.formats import check_packages
from distill.export.fused_onnx import export_fused, quantize_fused
from distill.export.onnx import OnnxClassifier, short_reason
from distill.models.positions import find_positions
from distill.models.windowed_bert import window_lengths
from distill.tasks import Task
from distill.utils.errors import UserError
from distill.utils.record_json import unmeasured

ONNX = "teacher in ONNX Runtime"
SOFTMAX = "softmax student of the same depth"
LONGEST = 512
"""Tokens up to which alternatives are timed, where the teacher has as many positions: those of BERT."""
TOLERANCE = 1e-4
"""Largest difference of a logit between the fused file and torch, relative to the largest logit if that is over 1."""


def measure_alternatives(
    setup: ComparisonSetup,
    models: Models,
    teacher_logits: Splits,
    softmax_student: Callable[[], PreTrainedModel] | None = None,
) -> list[AlternativeEntry]:
    """Return the entries ``alternatives`` of a record; what fails is null with a ``reason``.

    Only the process that calls this works on it.

    Args:
        setup: smallest batch size, lengths up to 512 or the teacher's positions, budget of a point and resamples;
            ONNX Runtime is measured on the CPU alone.
        models: with teacher and student, on the setup's device, in eval mode.
        teacher_logits: of the teacher in torch.
        softmax_student: loads the student as it stood before its attention was replaced; None where it never did.
    """
    settings, validation = setup.settings, setup.validation
    with tempfile.TemporaryDirectory(prefix="alternatives-") as folder:
        found = _teacher_in_onnx(models.teacher, setup.read_by("teacher"), teacher_logits, setup.device, Path(folder))
        if softmax_student is not None:
            found.append(_softmax_student(softmax_student, validation, settings.dtype, setup.device))
        speed = measure_alternative_speed(setup, models, found, _lengths(setup, models.teacher))
    thresholds = partial(_thresholds, setup.task, models)
    return [
        unmeasured(
            AlternativeEntry,
            name=each.name,
            format=each.format,
            dtype=each.dtype,
            speed=speed[each.name],
            **each.facts,
            **({} if each.logits is None else _quality(setup, each.logits, teacher_logits, thresholds(each))),
        )
        for each in found
    ]


def _lengths(setup: ComparisonSetup, teacher: PreTrainedModel) -> list[int]:
    """Return the lengths to time: those that are asked for, and the median of the user's own texts."""
    settings = setup.settings
    if not settings.lengths or not settings.batch_sizes:
        return []
    longest = min(LONGEST, find_positions(teacher) or UNLIMITED)
    return sorted({median_length(setup.validation), *(length for length in settings.lengths if length <= longest)})


def _thresholds(task: Task, models: Models, alternative: Alternative) -> Thresholds:
    """Return by which thresholds the two answer a multi-label task; the teacher in another format keeps its own."""
    model = alternative.load() if alternative.load and alternative.format == "torch" else models.teacher
    return thresholds_of(task, {"teacher": models.teacher, "alternative": model})


def _quality(setup: ComparisonSetup, logits: Splits, teacher: Splits, thresholds: Thresholds) -> dict[str, Any]:
    """Return metrics, retention and agreement, as those of the student are made."""
    task, labels = setup.task, setup.labels
    both = {"teacher": teacher, "alternative": logits}
    first = task.validation_splits[0]
    options: dict[str, Any] = {
        "thresholds": thresholds,
        "resamples": setup.settings.resamples,
        "seed": setup.seed,
    }
    retention = retention_over_splits(task, both, labels, "alternative", **options)
    return {
        "metrics": metrics_over_splits(task, logits, labels, thresholds.get("alternative", HALF)),
        "retention": significance.without_false_certainty(retention, len(labels[first])),
        "agreement": significance.agreement(
            *(predictions(task, each[first], thresholds.get(role, HALF)) for role, each in both.items())
        ),
    }


# ---------------------------------------------------------------- what there is


def _teacher_in_onnx(
    teacher: PreTrainedModel,
    validation: Mapping[str, TokenizedExamples],
    expected: Splits,
    device: torch.device | str,
    folder: Path,
) -> list[Alternative]:
    """Return the teacher in ONNX Runtime with its fusions for BERT, in fp32 and with int8 weights.

    Its files are left in ``folder``.
    """
    fp32, int8 = Alternative(f"{ONNX} fp32", "onnx", "float32"), Alternative(f"{ONNX} int8", "onnx", "int8")
    whole, small = folder / "float32.onnx", folder / "int8.onnx"

    def in_fp32() -> dict[str, Any]:
        _check_possible(teacher, validation, device)
        fused = export_fused(teacher, whole)
        logits = predict_validation(OnnxClassifier(whole), validation, alone=True)
        _check_parity({**expected, **predict_extremes(teacher, validation, alone=True)}, logits)
        facts = {"megabytes": _megabytes(whole), "fused": fused}
        return {"load": partial(OnnxClassifier, whole), "logits": logits, "facts": facts}

    def in_int8() -> dict[str, Any]:
        quantize_fused(whole, small)
        logits = _predict(OnnxClassifier(small), validation, "cpu")
        facts = {"megabytes": _megabytes(small)}
        return {"load": partial(OnnxClassifier, small), "logits": logits, "facts": facts}

    fp32 = _attempt(fp32, in_fp32)
    if fp32.load is None:
        return [fp32, _without(int8, fp32.facts["reason"])]
    return [fp32, _attempt(int8, in_int8)]


def _softmax_student(
    load: Callable[[], PreTrainedModel],
    validation: Mapping[str, TokenizedExamples],
    dtype: str,
    device: torch.device | str,
) -> Alternative:
    def in_torch() -> dict[str, Any]:
        model = load().to(device).eval()  # type: ignore[arg-type]
        return {"load": lambda: model, "logits": _predict(model, validation, device)}

    return _attempt(Alternative(SOFTMAX, "torch", dtype), in_torch)


def _attempt(alternative: Alternative, make: Callable[[], dict[str, Any]]) -> Alternative:
    """Return the alternative with what ``make`` returns, or with the reason why it cannot be had.

    An alternative never ends a comparison, and the libraries behind it raise errors of many kinds.
    """
    try:
        made = make()
    except UserError as error:
        return _without(alternative, str(error))
    except Exception as error:
        return _without(alternative, short_reason(error))
    return Alternative(alternative.name, alternative.format, alternative.dtype, **made)


def _without(alternative: Alternative, reason: str) -> Alternative:
    return Alternative(alternative.name, alternative.format, alternative.dtype, facts={"reason": reason})


def _check_possible(
    teacher: PreTrainedModel, validation: Mapping[str, TokenizedExamples], device: torch.device | str
) -> None:
    """Raise UserError where one file cannot stand for the teacher, or nothing could be timed against it."""
    check_packages("onnx")
    kind = torch.device(device).type
    if kind != "cpu":
        raise UserError(f"ONNX Runtime is measured on the CPU alone, and this comparison ran on {kind}")
    longest = max(int(examples.lengths.max()) for examples in validation.values())
    if len(window_lengths(teacher, longest)) > 1:
        raise UserError("the teacher reads the longest texts in windows, which no single ONNX file does")


def _check_parity(expected: Splits, got: Splits) -> None:
    scale = max(1.0, *(float(np.abs(values).max()) for values in expected.values()))
    difference = largest_difference(expected, got)
    if not difference <= TOLERANCE * scale:  # also where it is NaN
        raise UserError(
            f"the fused file does not compute the same: logits differ by {difference:.2g}, allowed is "
            f"{TOLERANCE * scale:.2g}"
        )


def _predict(
    model: nn.Module, validation: Mapping[str, TokenizedExamples], device: torch.device | str
) -> dict[str, np.ndarray]:
    """Return logits (n, C) of every split; UserError where they are not finite."""
    logits = {split: predict_logits(model, each, device=device, alone=True) for split, each in validation.items()}
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise UserError("its answers are not finite")
    return logits


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6
