"""Teacher against student against baseline: the one function that turns models into a record."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from distill.benchmark.conditions import DTYPES, Conditions, Models
from distill.benchmark.points import Measurements
from distill.benchmark.suite import measure
from distill.config.attention_fit import AttentionFit
from distill.config.copies_choice import CopiesChoice
from distill.config.schema import ComparisonConfig
from distill.config.shape_search import ShapeSearch
from distill.data.batching import TokenizedExamples, median_length
from distill.data.splits import EMBEDDED
from distill.evaluation import significance
from distill.evaluation.metrics import HALF, correlation_with_labels, metrics_over_splits
from distill.evaluation.predict import predict_logits
from distill.evaluation.predictions_file import Logits, predictions_frame
from distill.evaluation.quality import linear_form_quality, quality
from distill.evaluation.record import MODELS, SCHEMA, Record, finish_record
from distill.evaluation.record_parts import (
    AlternativeEntry,
    LinearForm,
    ModelEntries,
    ModelEntry,
    StageEntry,
    UnlabelledEntry,
    WindowsRead,
)
from distill.evaluation.thresholds import Thresholds, thresholds_of
from distill.models.flops import FLOPS_LENGTH, attention_name, model_flops
from distill.models.linear_form import linear_form
from distill.models.positions import positions_of
from distill.models.windowed_bert import window_lengths
from distill.tasks import Task
from distill.utils.environment import describe_environment
from distill.utils.errors import UserError
from distill.utils.record_json import unmeasured
from distill.utils.redaction import publishable


@dataclass(frozen=True)
class ComparisonSetup:
    """What all models of a comparison share."""

    task: Task
    validation: Mapping[str, TokenizedExamples]
    """All validation splits of the task, by name."""
    settings: ComparisonConfig
    device: torch.device | str
    """Where the models run."""
    seed: int = 0
    """Of the run, and of the resampling."""
    compiled: bool = False
    """Time all models through torch.compile."""
    teacher_validation: Mapping[str, TokenizedExamples] | None = None
    """The same rows in the tokens of a teacher with a tokenizer of its own; None: it reads the others' tokens."""

    @property
    def labels(self) -> dict[str, np.ndarray]:
        return {split: examples.labels for split, examples in self.validation.items()}

    def conditions(self, vocabulary_size: int) -> Conditions:
        """Return the conditions under which speed and memory are measured."""
        return Conditions(self.device, DTYPES[self.settings.dtype], vocabulary_size, self.compiled)

    def read_by(self, role: str) -> Mapping[str, TokenizedExamples]:
        """Return the validation splits in the tokens of a model."""
        return self.validation if role != "teacher" or self.teacher_validation is None else self.teacher_validation

    def predict(self, model: PreTrainedModel, role: str = "student") -> dict[str, np.ndarray]:
        """Return the logits (n, C) of every split; every process predicts its share."""
        return {split: predict_logits(model, each, device=self.device) for split, each in self.read_by(role).items()}


MeasureAlternatives = Callable[[ComparisonSetup, Models, Mapping[str, np.ndarray]], Sequence[AlternativeEntry]]
"""`distill.export.alternatives.measure_alternatives`, which stands right of this package."""


def compare_models(
    setup: ComparisonSetup,
    models: Models,
    measure_alternatives: MeasureAlternatives,
    *,
    stages: Sequence[StageEntry] = (),
    source: str | None = None,
    training_precision: str | None = None,
    unlabelled: UnlabelledEntry | None = None,
    search: ShapeSearch | None = None,
    attention_fit: AttentionFit | None = None,
    copies_choice: CopiesChoice | None = None,
) -> tuple[Record, pd.DataFrame]:
    """Predict with all models, measure teacher, student and alternatives, and return the record and all predictions.

    Every process predicts its share; speed and memory are measured by the main process alone and are empty in the
    record of the others.

    Args:
        setup: what all models share.
        models: what is compared.
        measure_alternatives: is given the teacher's logits.
        stages: what each stage of the distillation bought.
        source: where the examples came from, as ``data.dir`` says it; None is the Hub.
        training_precision: in which the student was trained, where that is known.
        unlabelled: the texts without labels that the stages read.
        search: how the student's shape was found.
        attention_fit: how the mechanisms of its layers were found.
        copies_choice: which altered copies were tried.
    """
    task, settings = setup.task, setup.settings
    check_comparable(task, models.compared, one_vocabulary=setup.teacher_validation is None)
    for model in models.compared.values():
        model.to(setup.device)  # type: ignore[arg-type]
    logits: Logits = {role: setup.predict(model, role) for role, model in models.compared.items()}
    thresholds = thresholds_of(task, models.compared)
    linear = _linear_form(setup, models, logits, thresholds)
    measured, alternatives = Measurements(), tuple[AlternativeEntry, ...]()
    if PartialState().is_main_process:
        conditions = setup.conditions(smallest_vocabulary(models))
        texts = [setup.read_by(role)[task.validation_splits[0]] for role in ("student", "teacher")]
        measured = measure(models, conditions, settings, *texts)
        alternatives = tuple(measure_alternatives(setup, models, logits["teacher"]))
    record = Record(
        schema=SCHEMA,
        task=task.name,
        split=task.validation_splits[0],
        num_examples=len(setup.labels[task.validation_splits[0]]),
        main_metric=task.main_metric,
        seed=setup.seed,
        models=_model_entries(setup, models, logits, thresholds),
        **vars(quality(task, logits, setup.labels, settings.resamples, setup.seed, thresholds)),
        **vars(measured),
        stages=tuple(stages),
        alternatives=alternatives,
        environment=describe_environment(setup.device, training_precision),
        median_length=median_length(setup.validation),
        linear_form=linear,
        unlabelled=unlabelled,
        search=search,
        attention_fit=attention_fit,
        copies_choice=copies_choice,
        source={None: "hub", EMBEDDED: EMBEDDED}.get(source, "folder"),
        data_name=None
        if source in (None, EMBEDDED)
        else publishable(Path(os.path.abspath(Path(source).expanduser())).name),
    )
    return finish_record(record), predictions_frame(logits, setup.validation, thresholds)


def _linear_form(setup: ComparisonSetup, models: Models, logits: Logits, thresholds: Thresholds) -> LinearForm | None:
    """Score the mechanism alone of a student that attends short texts exactly; None of any other student."""
    if not getattr(models.student.config, "exact_up_to", 0):
        return None
    with linear_form(models.student):
        linear = setup.predict(models.student)
    options = (setup.settings.resamples, setup.seed, thresholds)
    return linear_form_quality(setup.task, linear, logits, setup.labels, *options)


def _model_entries(setup: ComparisonSetup, models: Models, logits: Logits, thresholds: Thresholds) -> ModelEntries:
    """Return quality and size of every model."""
    task, labels, split = setup.task, setup.labels, setup.task.validation_splits[0]
    entries: dict[str, Any] = dict.fromkeys(MODELS, unmeasured(ModelEntry, reason="no such model was given"))
    for role, model in models.compared.items():
        first, threshold = (logits[role][split], labels[split]), thresholds.get(role, HALF)
        more: dict[str, Any] = {"label_correlation": correlation_with_labels(task, *first, threshold)}
        if task.multi_label:
            more |= {"threshold": threshold, "calibration_error": significance.label_calibration_error(*first)}
        elif not task.is_regression:
            more["calibration_error"] = significance.expected_calibration_error(*first)
        if role == "teacher":
            more["windows"] = windows_read(model, setup.read_by(role))
        entries[role] = describe_model(model, metrics_over_splits(task, logits[role], labels, threshold), **more)
    return ModelEntries(**entries)


def describe_model(model: PreTrainedModel, metrics: Mapping[str, float], **more: Any) -> ModelEntry:
    """Return size, depth, attention and FLOPs of a model beside its metrics; null with a reason where unknown.

    ``more``: further keys of the entry.
    """
    flops, reason = None, None
    try:
        flops = model_flops(model.config, FLOPS_LENGTH)
    except UserError as error:
        reason = str(error)
    return ModelEntry(
        metrics=metrics,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=getattr(model.config, "num_hidden_layers", None),
        attention=attention_name(model.config),
        flops=flops,
        flops_length=FLOPS_LENGTH,
        flops_reason=reason,
        **more,
    )


def windows_read(teacher: PreTrainedModel, validation: Mapping[str, TokenizedExamples]) -> WindowsRead | None:
    """Return the tokens of a window and the share of texts that need several; None where none does."""
    lengths = np.concatenate([examples.lengths for examples in validation.values()])
    several = np.array([len(window_lengths(teacher, int(length))) > 1 for length in lengths])
    if not several.any():
        return None
    return WindowsRead(positions_of(teacher), float(several.mean()))


def smallest_vocabulary(models: Models) -> int:
    """Return the size of a vocabulary whose tokens all models know, for the random texts that are timed."""
    sizes = [getattr(model.config, "vocab_size", None) for model in (models.teacher, models.student)]
    return min(size for size in sizes if size)


def check_comparable(task: Task, models: Mapping[str, PreTrainedModel], *, one_vocabulary: bool = True) -> None:
    """Refuse models whose number of labels is not the task's, or whose vocabularies differ.

    The teacher's may, where not all read ``one_vocabulary``.
    """
    for role, model in models.items():
        if model.config.num_labels != task.num_labels:
            raise UserError(
                f"the {role} has {model.config.num_labels} labels, task {task.name} has {task.num_labels}; "
                f"give a checkpoint that was fine-tuned on {task.name}"
            )
    alike = {role: model for role, model in models.items() if one_vocabulary or role != "teacher"}
    sizes = {role: model.config.vocab_size for role, model in alike.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{role} {size}" for role, size in sizes.items())
        raise UserError(f"the vocabularies differ ({text} entries); teacher and student must share one tokenizer")
