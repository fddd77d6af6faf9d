"""A student in another format: does it answer as the student in torch does, how well, and how fast.

Shapes: n examples, C labels.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from distill.benchmark.model_copies import is_speed_only, make_inputs, prepare_model
from distill.benchmark.timing import (
    PointError,
    check_affordable,
    is_out_of_memory,
    ratio_of_medians,
    time_interleaved,
    typical_seconds,
)
from distill.data.batching import TokenizedExamples
from distill.evaluation.metrics import metrics_over_splits
from distill.evaluation.predict import predict_logits
from distill.evaluation.record import DEPLOYMENT_NUMBERS, Record
from distill.export.companions import write_companions
from distill.export.onnx import OnnxClassifier, export_onnx, quantize_onnx
from distill.models.flops import attention_name
from distill.tasks import Task
from distill.utils.environment import describe_environment
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, replace_file

TOLERANCE = 1e-4
"""Largest difference of a logit between an exported file in fp32 and torch."""
EXTREMES = 8
"""So many of the shortest examples share a batch with as many of the longest: most of that batch is padding."""

Point = dict[str, Any]
Logits = Mapping[str, np.ndarray]
"""split -> (n, C)"""


@dataclass(frozen=True)
class Deployment:
    """A file that was checked and stands under its final name, and what it answers."""

    dtype: str
    """Of the weights: float32 or int8."""
    path: Path
    model: OnnxClassifier
    logits: Logits


def deploy_onnx(
    student: PreTrainedModel,
    output: Path,
    validation: Mapping[str, TokenizedExamples],
    expected: Logits,
    *,
    int8: bool,
    beside: Mapping[Path, str] | None = None,
) -> list[Deployment]:
    """Export ``student`` to ``output`` and, for ``int8``, beside it to ``<name>.int8<suffix>``.

    A file gets its name after its answers were checked; until then it lies in a hidden folder that does not stay.

    Args:
        student: on the CPU, in eval mode and fp32.
        output: the folder must exist.
        validation: what is predicted.
        expected: of ``student`` in torch, by `predict_validation`.
        int8: whether a quantised copy is wanted.
        beside: what else belongs to the files, by `distill.export.companions.companions_of`.

    Raises:
        UserError: the attention cannot be exported, or the file does not answer as torch does or cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(suffix=UNFINISHED, prefix=".export-", dir=output.parent) as folder:
            aside = Path(folder) / "float32.onnx"
            export_onnx(student, aside)
            model = OnnxClassifier(aside)
            logits = predict_validation(model, validation)
            check_parity(expected, logits, attention_name(student.config))
            final = output.with_name(f"{output.stem}.int8{output.suffix}")
            write_companions(beside or {}, (output, final))
            replace_file(aside, output)
            deployments = [Deployment("float32", output, model, logits)]
            if int8:
                aside = Path(folder) / "int8.onnx"
                quantize_onnx(output, aside)
                model = OnnxClassifier(aside)
                logits = predict_validation(model, validation)
                if not np.isfinite(largest_difference(expected, logits)):
                    raise UserError(f"{final} was not written: with int8 weights the answers are not finite")
                replace_file(aside, final)
                deployments.append(Deployment("int8", final, model, logits))
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror or error}") from error
    return deployments


def describe_deployments(
    task: Task,
    student: PreTrainedModel,
    deployments: Sequence[Deployment],
    labels: Mapping[str, np.ndarray],
    expected: Logits,
    *,
    batch_sizes: Sequence[int],
    lengths: Sequence[int],
    seconds_per_point: float,
) -> list[dict[str, Any]]:
    """Return the entries ``deployments[]`` of a record: size in MB (10⁶ bytes), metrics, and latency measured now.

    ``parity`` is the largest difference of a logit from ``expected``, the answers of ``student`` in torch.
    """
    models = {deployment.dtype: deployment.model for deployment in deployments}
    speed = measure_latency(
        student, models, batch_sizes=batch_sizes, lengths=lengths, seconds_per_point=seconds_per_point
    )
    environment = {**describe_environment("cpu"), "onnxruntime": version("onnxruntime")}
    return [
        {
            "format": "onnx",
            "dtype": deployment.dtype,
            "file": deployment.path.name,
            "megabytes": deployment.path.stat().st_size / 1e6,
            "parity": largest_difference(expected, deployment.logits),
            "metrics": metrics_over_splits(task, deployment.logits, labels),
            "speed": speed[deployment.dtype],
            "environment": environment,
        }
        for deployment in deployments
    ]


def predict_validation(
    model: nn.Module, validation: Mapping[str, TokenizedExamples], *, alone: bool = False
) -> dict[str, np.ndarray]:
    """Return logits (n, C) of every validation split, and of what ordinary batches do not contain.

    Beside the splits there is what :func:`predict_extremes` returns. ``alone`` is that of `predict_logits`.
    """
    logits = {split: predict_logits(model, each, device="cpu", alone=alone) for split, each in validation.items()}
    return logits | predict_extremes(model, validation, alone=alone)


def predict_extremes(
    model: nn.Module, validation: Mapping[str, TokenizedExamples], *, alone: bool = False
) -> dict[str, np.ndarray]:
    """Return logits (n, C) of the shortest and the longest examples of the first split.

    ``unpadded`` has each of them alone and without padding, ``padded`` all of them in one batch.
    """
    options: dict[str, Any] = {"device": "cpu", "alone": alone}
    examples = next(iter(validation.values()))
    order = np.argsort(examples.lengths, kind="stable")
    extremes = _subset(examples, np.unique(np.concatenate([order[:EXTREMES], order[-EXTREMES:]])))
    bare = replace(extremes, pad_multiple=1)
    return {
        "padded": predict_logits(model, extremes, batch_size=len(extremes), **options),
        "unpadded": predict_logits(model, bare, batch_size=1, **options),
    }


def _subset(examples: TokenizedExamples, indices: np.ndarray) -> TokenizedExamples:
    """Return the examples at ``indices``, in that order."""
    tokens = [slice(examples.offsets[index], examples.offsets[index + 1]) for index in indices]
    return replace(
        examples,
        token_ids=np.concatenate([examples.token_ids[part] for part in tokens]),
        token_type_ids=np.concatenate([examples.token_type_ids[part] for part in tokens]),
        offsets=np.concatenate([[0], np.cumsum(examples.lengths[indices])]),
        labels=examples.labels[indices],
        ids=examples.ids[indices],
    )


def largest_difference(first: Logits, second: Logits) -> float:
    """Return the largest difference of two logits over all splits; NaN where one is not a number."""
    return float(np.max([np.abs(first[split] - second[split]).max() for split in first]))


def check_parity(expected: Logits, got: Logits, attention: str) -> None:
    """Raise UserError unless all logits of an exported file in fp32 are within `TOLERANCE` of torch's."""
    difference = largest_difference(expected, got)
    if not difference < TOLERANCE:  # also where it is NaN
        worst = max(expected, key=lambda split: np.nan_to_num(np.abs(expected[split] - got[split]), nan=np.inf).max())
        raise UserError(
            f"attention {attention!r} does not compute the same in ONNX: logits differ by {difference:.2g} "
            f"({worst} examples), allowed is {TOLERANCE:g}; no file was left"
        )


def measure_latency(
    student: PreTrainedModel,
    deployed: Mapping[str, nn.Module],
    *,
    batch_sizes: Sequence[int],
    lengths: Sequence[int],
    seconds_per_point: float,
) -> dict[str, list[Point]]:
    """Time the student in torch and its deployments against each other on the CPU, in interleaved rounds.

    Args:
        student: timed in fp32.
        deployed: models of the same interface, by the dtype of their weights.
        batch_sizes: numbers of examples.
        lengths: in tokens, without padding.
        seconds_per_point: budget of a point; a slow one overruns it to reach 6 rounds.

    Returns:
        dtype -> points, each with ``device``, ``dtype``, ``batch_size``, ``length``, ``student_ms``, ``deployed_ms``,
        ``speedup`` (student / deployed, medians), its 95 % interval ``low`` and ``high``, and ``pairs``. A point that
        cannot be measured, as beyond the student's positions, has nulls and a ``reason``.
    """
    points: dict[str, list[Point]] = {name: [] for name in deployed}
    seconds_per_token = 0.0
    for batch_size in sorted(batch_sizes):
        for length in sorted(lengths):
            empty = {"batch_size": batch_size, "length": length, **dict.fromkeys(DEPLOYMENT_NUMBERS)}
            try:
                check_affordable(seconds_per_token * batch_size * length, seconds_per_point)
                times = _time_point(student, deployed, batch_size, length, seconds_per_point)
            except PointError as error:
                for name, measured in points.items():
                    measured.append({"device": "cpu", "dtype": name, **empty, "reason": str(error)})
                continue
            for name, measured in points.items():
                compared = _compared(times["student"], times[name])
                measured.append({"device": "cpu", "dtype": name, **empty, **compared})
            rate = sum(map(typical_seconds, times.values())) / (batch_size * length)
            seconds_per_token = min(seconds_per_token or rate, rate)
    return points


def _time_point(
    student: PreTrainedModel, deployed: Mapping[str, nn.Module], batch_size: int, length: int, seconds: float
) -> dict[str, np.ndarray]:
    """Return (blocks, rounds) seconds of each model; PointError says why there are none."""
    if is_speed_only([student], length):
        raise PointError("longer than the student has positions")

    def prepare() -> dict[str, Callable[[], Any]]:
        models = {"student": prepare_model(student, "cpu", torch.float32), **deployed}
        sizes: dict[str, Any] = {"vocabulary_size": student.config.vocab_size, "device": "cpu"}
        return {
            name: partial(model, **make_inputs(model, batch_size, length, **sizes)) for name, model in models.items()
        }

    try:
        with torch.inference_mode():
            return time_interleaved(prepare, seconds=seconds)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise PointError("out of memory") from None


def _compared(student: np.ndarray, deployed: np.ndarray) -> Point:
    speedup, low, high = ratio_of_medians(student, deployed)
    return {
        "student_ms": 1000 * typical_seconds(student),
        "deployed_ms": 1000 * typical_seconds(deployed),
        "speedup": speedup,
        "low": low,
        "high": high,
        "pairs": student.size,
    }


def with_deployments(record: Record, deployments: Sequence[Mapping[str, Any]]) -> Record:
    """Return a record that has these deployments too; an earlier one of the same file is replaced."""
    files = {deployment["file"] for deployment in deployments}
    others = [earlier for earlier in record.get("deployments", []) if earlier["file"] not in files]
    return {**record, "deployments": [*others, *deployments]}
