"""A student in another format: does it answer as the student in torch does, how well, and how fast.

Shapes: n examples, C labels.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from distill.benchmark.points import Interval
from distill.data.batching import TokenizedExamples, subset
from distill.evaluation import significance
from distill.evaluation.metrics import HALF, metrics_over_splits, predictions
from distill.evaluation.predict import predict_logits
from distill.evaluation.quality import retention_over_splits
from distill.evaluation.record import Record, finish_record
from distill.evaluation.record_parts import DeploymentEntry, DeploymentPoint
from distill.export.companions import write_companions
from distill.export.formats import FileFormat, exports_named, runtime_versions
from distill.export.int8 import Int8Texts, choose_fp32_layers
from distill.export.onnx import export_onnx
from distill.models.flops import attention_name
from distill.tasks import Task
from distill.utils.environment import describe_environment
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, replace_file

TOLERANCE = 1e-4
"""Largest difference of a logit between an exported file in fp32 and torch."""
EXTREMES = 8
"""So many of the shortest examples share a batch with as many of the longest: most of that batch is padding."""

Logits = Mapping[str, np.ndarray]
"""split -> (n, C)"""


@dataclass(frozen=True)
class Reference:
    """What a model that is deployed, or its teacher, says of the validation examples."""

    logits: Logits
    threshold: float = HALF
    """Of a multi-label task: the probability from which on a label is given."""


@dataclass(frozen=True)
class Deployment:
    """A file or folder that was checked and stands under its final name, and what it answers."""

    format: str
    """onnx, openvino, or bert for a folder."""
    dtype: str
    """Of the weights: float32 or int8."""
    path: Path
    model: nn.Module
    logits: Logits
    fp32_layers: tuple[str, ...] | None = None
    """Of int8: those that stayed as they were."""
    files: tuple[Path, ...] = ()
    """That it consists of; none: what stands at ``path``."""
    reload: Callable[[], nn.Module] | None = None
    """Loads what has a number of threads of its own, so that it has as many as torch has now."""

    def load(self) -> nn.Module:
        """Return the model with as many threads as torch has now."""
        return self.reload() if self.reload else self.model

    @property
    def megabytes(self) -> float:
        """Of all its files."""
        files = self.files or [path for path in self.path.rglob("*") if path.is_file()] or [self.path]
        return sum(path.stat().st_size for path in files) / 1e6


def deploy_file(
    student: PreTrainedModel,
    output: Path,
    form: FileFormat,
    validation: Mapping[str, TokenizedExamples],
    expected: Logits,
    *,
    int8: Int8Texts | None = None,
    beside: Mapping[Path, str] | None = None,
) -> list[Deployment]:
    """Export ``student`` to ``output`` and, for ``int8``, beside it to ``<name>.int8<suffix>``.

    A file gets its name after its answers were checked; until then it lies in a hidden folder that does not stay.

    Args:
        student: on the CPU, in eval mode and fp32.
        output: the folder must exist.
        form: of the files.
        validation: what is predicted.
        expected: of ``student`` in torch, by `predict_validation`.
        int8: what a quantised copy is judged by, where one is wanted.
        beside: what else belongs to the files, by `distill.export.companions.companions_of`.

    Raises:
        UserError: the attention cannot be exported, or the file does not answer as torch does or cannot be written.
    """

    def deployment(path: Path, dtype: str, model: nn.Module, logits: Logits, in_fp32: Any = None) -> Deployment:
        return Deployment(form.name, dtype, path, model, logits, in_fp32, form.parts(path), partial(form.load, path))

    try:
        with tempfile.TemporaryDirectory(suffix=UNFINISHED, prefix=".export-", dir=output.parent) as folder:
            traced, aside = Path(folder) / "traced.onnx", Path(folder) / f"float32{form.suffix}"
            export_onnx(student, traced)
            form.convert(traced, aside)
            model = form.load(aside)
            logits = predict_validation(model, validation)
            check_parity(expected, logits, attention_name(student.config), form=form.title)
            final = output.with_name(f"{output.stem}.int8{output.suffix}")
            deployments, checked = [deployment(output, "float32", model, logits)], {aside: output}
            if int8:
                quantized = Path(folder) / f"int8{form.suffix}"
                in_fp32 = choose_fp32_layers(traced, Path(folder), int8, form)
                form.quantize(traced, quantized, in_fp32, int8.calibration)
                model = form.load(quantized)
                logits = predict_validation(model, validation)
                if not np.isfinite(largest_difference(expected, logits)):
                    raise UserError(f"{output} was not written: with int8 weights the answers are not finite")
                deployments.append(deployment(final, "int8", model, logits, in_fp32))
                checked[quantized] = final
            # Only now, one behind the other: nothing that takes long may part the files of one student.
            write_companions(beside or {}, exports_named(output.with_suffix("")))
            for path, name in checked.items():
                move(form.parts(path), form.parts(name))
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror or error}") from error
    return deployments


def move(files: Sequence[Path], names: Sequence[Path]) -> None:
    """Give files that belong together their names, the one that is loaded last: no older one may find the others."""
    if len(names) > 1:
        names[-1].unlink(missing_ok=True)
    for file, name in zip(files, names, strict=True):
        replace_file(file, name)


def describe_deployments(
    task: Task,
    deployments: Sequence[Deployment],
    labels: Mapping[str, np.ndarray],
    expected: Logits,
    speed: Mapping[str, tuple[DeploymentPoint, ...]],
    threshold: float = HALF,
    teacher: Reference | None = None,
) -> list[DeploymentEntry]:
    """Return the entries ``deployments`` of a record.

    Args:
        task: names the metrics.
        deployments: what was exported.
        labels: split -> (n,).
        expected: of the student in torch.
        speed: of `distill.export.deployment_speed.measure_latency`.
        threshold: of the student, for a multi-label task.
        teacher: what it answered, where it is known.
    """
    environment = describe_environment("cpu")
    first = task.validation_splits[0]

    def kept(deployment: Deployment, reference: Reference) -> dict[str, Interval]:
        both = {"teacher": reference.logits, "deployed": deployment.logits}
        thresholds = {"teacher": reference.threshold, "deployed": threshold}
        found = retention_over_splits(task, both, labels, "deployed", thresholds=thresholds)
        return significance.without_false_certainty(found, len(labels[first]))

    return [
        DeploymentEntry(
            format=deployment.format,
            dtype=deployment.dtype,
            file=deployment.path.name,
            megabytes=deployment.megabytes,
            parity=largest_difference(expected, deployment.logits),
            metrics=metrics_over_splits(task, deployment.logits, labels, threshold),
            retention=kept(deployment, Reference(expected, threshold)),
            teacher_retention=None if teacher is None else kept(deployment, teacher),
            agreement=significance.agreement(
                *(predictions(task, each[first], threshold) for each in (expected, deployment.logits))
            ),
            fp32_layers=deployment.fp32_layers,
            speed=speed[deployment.dtype],
            environment=environment | runtime_versions(deployment.format),
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
    extremes = subset(examples, np.unique(np.concatenate([order[:EXTREMES], order[-EXTREMES:]])))
    bare = replace(extremes, pad_multiple=1)
    return {
        "padded": predict_logits(model, extremes, batch_size=len(extremes), **options),
        "unpadded": predict_logits(model, bare, batch_size=1, **options),
    }


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


def with_deployments(record: Record, deployments: Sequence[DeploymentEntry], removed: Collection[str] = ()) -> Record:
    """Return a record that has these deployments too; an earlier one of the same file, or of one removed, goes."""
    files = {deployment.file for deployment in deployments} | set(removed)
    others = (earlier for earlier in record.deployments if earlier.file not in files)
    return finish_record(replace(record, deployments=(*others, *deployments)))
