"""A student in another format: does it answer as the student in torch does, how well, and how fast.

Shapes: n examples, C labels.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from distill.benchmark.conditions import Conditions
from distill.benchmark.model_copies import is_speed_only, make_inputs, prepare_model
from distill.benchmark.timing import (
    Budget,
    Calls,
    PointError,
    TimedPoint,
    Times,
    ratio_of_medians,
    time_on_device,
    time_points,
    typical_seconds,
)
from distill.data.batching import TokenizedExamples
from distill.evaluation.metrics import HALF, metrics_over_splits
from distill.evaluation.predict import predict_logits
from distill.evaluation.record import Record, finish_record
from distill.evaluation.record_parts import DeploymentEntry, DeploymentPoint
from distill.export.companions import write_companions
from distill.export.onnx import OnnxClassifier, export_onnx, quantize_onnx
from distill.models.flops import attention_name
from distill.tasks import Task
from distill.utils.environment import describe_environment
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, replace_file
from distill.utils.record_json import unmeasured

TOLERANCE = 1e-4
"""Largest difference of a logit between an exported file in fp32 and torch."""
EXTREMES = 8
"""So many of the shortest examples share a batch with as many of the longest: most of that batch is padding."""

RUNTIMES: Mapping[str, Callable[[], dict[str, str]]] = {
    "onnx": lambda: {"onnxruntime": version("onnxruntime")},
    "bert": dict,
}
"""Format to the version of what runs it, where that is not torch."""

Logits = Mapping[str, np.ndarray]
"""split -> (n, C)"""


@dataclass(frozen=True)
class Deployment:
    """A file or folder that was checked and stands under its final name, and what it answers."""

    format: str
    """onnx, or bert for a folder."""
    dtype: str
    """Of the weights: float32 or int8."""
    path: Path
    model: nn.Module
    logits: Logits

    @property
    def megabytes(self) -> float:
        """Of the file, or of all files in the folder."""
        files = [path for path in self.path.rglob("*") if path.is_file()] or [self.path]
        return sum(path.stat().st_size for path in files) / 1e6


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
            deployments = [Deployment("onnx", "float32", output, model, logits)]
            if int8:
                aside = Path(folder) / "int8.onnx"
                quantize_onnx(output, aside)
                model = OnnxClassifier(aside)
                logits = predict_validation(model, validation)
                if not np.isfinite(largest_difference(expected, logits)):
                    raise UserError(f"{final} was not written: with int8 weights the answers are not finite")
                replace_file(aside, final)
                deployments.append(Deployment("onnx", "int8", final, model, logits))
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror or error}") from error
    return deployments


def describe_deployments(
    task: Task,
    deployments: Sequence[Deployment],
    labels: Mapping[str, np.ndarray],
    expected: Logits,
    speed: Mapping[str, tuple[DeploymentPoint, ...]],
    threshold: float = HALF,
) -> list[DeploymentEntry]:
    """Return the entries ``deployments`` of a record.

    Args:
        task: names the metrics.
        deployments: what was exported.
        labels: split -> (n,).
        expected: of the student in torch.
        speed: of `measure_latency`.
        threshold: of the student, for a multi-label task.
    """
    environment = describe_environment("cpu")
    return [
        DeploymentEntry(
            format=deployment.format,
            dtype=deployment.dtype,
            file=deployment.path.name,
            megabytes=deployment.megabytes,
            parity=largest_difference(expected, deployment.logits),
            metrics=metrics_over_splits(task, deployment.logits, labels, threshold),
            speed=speed[deployment.dtype],
            environment=environment | RUNTIMES[deployment.format](),
        )
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


def check_parity(
    expected: Logits, got: Logits, attention: str, *, form: str = "ONNX", tolerance: float = TOLERANCE
) -> None:
    """Raise UserError unless all logits of an export in fp32 are within ``tolerance`` of the student's in torch.

    Args:
        expected: of the student in torch.
        got: of the export.
        attention: the student's, for the message.
        form: what it was exported to, for the message.
        tolerance: largest difference of a logit.
    """
    difference = largest_difference(expected, got)
    if not difference < tolerance:  # also where it is NaN
        worst = max(expected, key=lambda split: np.nan_to_num(np.abs(expected[split] - got[split]), nan=np.inf).max())
        raise UserError(
            f"attention {attention!r} does not compute the same in {form}: logits differ by {difference:.2g} "
            f"({worst} examples), allowed is {tolerance:.2g}; no file was left"
        )


def measure_latency(
    student: PreTrainedModel,
    deployed: Mapping[str, nn.Module],
    grid: Sequence[tuple[int, int]],
    seconds_per_point: float,
) -> dict[str, tuple[DeploymentPoint, ...]]:
    """Time the student in torch and its deployments against each other on the CPU, in interleaved rounds.

    Args:
        student: timed in fp32.
        deployed: models of the same interface, by the dtype of their weights.
        grid: pairs of batch size and length in tokens, without padding, the cheaper ones first.
        seconds_per_point: budget of a point; a slow one overruns it to reach 6 rounds.

    Returns:
        dtype -> points. One that cannot be measured, as beyond the student's positions, has nulls and a ``reason``.
    """
    conditions = Conditions("cpu", torch.float32, student.config.vocab_size)

    def time_point(batch_size: int, length: int) -> Times:
        if is_speed_only([student], length):
            raise PointError("longer than the student has positions")
        if is_speed_only(deployed.values(), length):
            raise PointError("longer than the export has positions")

        def prepare() -> Calls:
            models = {"student": prepare_model(student, "cpu", torch.float32), **deployed}
            sizes: dict[str, Any] = {"vocabulary_size": conditions.vocabulary_size, "device": "cpu"}
            inputs = {name: make_inputs(model, batch_size, length, **sizes) for name, model in models.items()}
            return {name: partial(model, **inputs[name]) for name, model in models.items()}

        return time_on_device(prepare, conditions, seconds_per_point)

    timed = list(time_points(grid, time_point, Budget(seconds_per_point)))
    return {dtype: tuple(_speed_point(dtype, point) for point in timed) for dtype in deployed}


def _speed_point(dtype: str, point: TimedPoint) -> DeploymentPoint:
    """Return a point of the record from the times of the student in torch and of the deployment in ``dtype``."""
    place: dict[str, Any] = {"device": "cpu", "dtype": dtype, "batch_size": point.batch_size, "length": point.length}
    if dtype not in point.times:
        return unmeasured(DeploymentPoint, **place, reason=point.reason)
    student, deployed = point.times["student"], point.times[dtype]
    speedup, low, high = ratio_of_medians(student, deployed)
    return DeploymentPoint(
        **place,
        student_ms=1000 * typical_seconds(student),
        deployed_ms=1000 * typical_seconds(deployed),
        speedup=speedup,
        low=low,
        high=high,
        pairs=student.size,
    )


def with_deployments(record: Record, deployments: Sequence[DeploymentEntry], removed: Collection[str] = ()) -> Record:
    """Return a record that has these deployments too; an earlier one of the same file, or of one removed, goes."""
    files = {deployment.file for deployment in deployments} | set(removed)
    others = (earlier for earlier in record.deployments if earlier.file not in files)
    return finish_record(replace(record, deployments=(*others, *deployments)))
