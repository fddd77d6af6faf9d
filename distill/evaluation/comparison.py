"""Teacher against student against baseline: the one function that turns models into a record."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from distill.benchmark.suite import CompareSettings, measure
from distill.data.batching import TokenizedExamples, median_length
from distill.data.splits import EMBEDDED
from distill.evaluation import significance
from distill.evaluation.metrics import metrics_over_splits
from distill.evaluation.predict import predict_logits
from distill.evaluation.predictions_file import Logits, predictions_frame
from distill.evaluation.quality import linear_form_quality, quality
from distill.evaluation.record import SCHEMA, Record, not_finite, plain, validate_record
from distill.models.flops import attention_name, model_flops
from distill.models.linear_form import linear_form
from distill.models.windowed_bert import window_lengths
from distill.tasks import Task
from distill.utils.environment import describe_environment
from distill.utils.errors import UserError

FLOPS_LENGTH = 128


# ---------------------------------------------------------------- the record


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """Size, depth, attention and FLOPs (of one example of 128 tokens) of a model; null with a reason where unknown."""
    described: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": getattr(model.config, "num_hidden_layers", None),
        "attention": attention_name(model.config),
        "flops": None,
        "flops_length": FLOPS_LENGTH,
    }
    try:
        described["flops"] = model_flops(model.config, FLOPS_LENGTH)
    except UserError as error:
        described["flops_reason"] = str(error)
    return described


def windows_read(teacher: PreTrainedModel, validation: Mapping[str, TokenizedExamples]) -> dict[str, Any] | None:
    """Return the tokens of a window and the share of texts that need several; None where none does."""
    lengths = np.concatenate([examples.lengths for examples in validation.values()])
    several = np.array([len(window_lengths(teacher, int(length))) > 1 for length in lengths])
    if not several.any():
        return None
    return {"tokens": int(teacher.config.max_position_embeddings), "share_of_texts": float(several.mean())}


def build_record(
    task: Task,
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    models: Mapping[str, Mapping[str, Any]],
    *,
    stages: Sequence[Mapping[str, Any]] = (),
    speed: Sequence[Mapping[str, Any]] = (),
    memory: Sequence[Mapping[str, Any]] = (),
    crossover: tuple[int | None, str | None] = (None, "speed was not measured"),
    noise: Mapping[str, Any] | None = None,
    throughput: Mapping[str, Any] | None = None,
    alternatives: Sequence[Mapping[str, Any]] = (),
    environment: Mapping[str, Any] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Record:
    """Put a record together: valid, plain JSON, every null with its reason.

    Args:
        task: names the metrics and the validation splits; all of these are used.
        logits: role -> split -> (n, C); ``teacher`` and ``student``, and ``baseline`` where there is one.
        labels: split -> (n,).
        models: role -> `describe_model`.
        stages: what each stage of the distillation bought.
        speed: of `measure_speed`.
        memory: of `measure_memory`.
        crossover: of `crossover_length`.
        noise: of `measure_noise`.
        throughput: of `measure_throughput`.
        alternatives: of `distill.export.alternatives.measure_alternatives`.
        environment: of `describe_environment`.
        resamples: bootstrap resamples behind every interval.
        seed: of the run, and of the resampling.
    """
    split = task.validation_splits[0]
    entries: dict[str, Any] = {}
    for role in ("teacher", "student", "baseline"):
        if role not in logits:
            empty = dict.fromkeys(("metrics", "parameters", "layers", "attention", "flops"))
            entries[role] = {**empty, "reason": "no such model was given"}
            continue
        entries[role] = {"metrics": metrics_over_splits(task, logits[role], labels), **models[role]}
        if not task.is_regression:
            error = significance.expected_calibration_error(logits[role][split], labels[split])
            entries[role]["calibration_error"] = error
    length, reason = crossover
    record: Record = {
        "schema": SCHEMA,
        "task": task.name,
        "split": split,
        "num_examples": len(labels[split]),
        "main_metric": task.main_metric,
        "seed": seed,
        "models": entries,
        **quality(task, logits, labels, resamples, seed),
        "speed": list(speed),
        "noise": noise,
        "throughput": throughput,
        "memory": list(memory),
        "crossover_length": length,
        **({"crossover_reason": reason} if reason else {}),
        "stages": list(stages),
        "alternatives": list(alternatives),
        "environment": environment or {},
    }
    if broken := not_finite(record):
        record["reasons"] = dict.fromkeys(broken, "not a finite number")
    return validate_record(plain(record))


# ---------------------------------------------------------------- the whole comparison


def compare_models(
    task: Task,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    baseline: PreTrainedModel | None,
    control: PreTrainedModel | None,
    validation: Mapping[str, TokenizedExamples],
    settings: CompareSettings,
    *,
    device: torch.device | str,
    seed: int = 0,
    stages: Sequence[Mapping[str, Any]] = (),
    folders: Mapping[str, Path | str] | None = None,
    source: str | None = None,
    training_precision: str | None = None,
    measure_alternatives: Callable[..., list[dict[str, Any]]],
) -> tuple[Record, pd.DataFrame]:
    """Predict with all models, measure teacher, student and alternatives, and return the record and all predictions.

    Every process predicts its share; speed and memory are measured by the main process alone and are empty in the
    record of the others.

    Args:
        task: what the models were trained for.
        teacher: sequence classifier.
        student: the same interface and labels.
        baseline: the same student trained on labels alone, or None.
        control: softmax student of the student's depth, for speed only, or None; the student itself counts as its own
            where its attention is softmax.
        validation: split -> tokenised examples, all validation splits of the task.
        settings: what is measured.
        device: where the models run.
        seed: of the run, and of the resampling.
        stages: goes into the record as it is.
        source: where the examples came from, as ``data.dir`` says it; None is the Hub.
        folders: checkpoints of ``teacher`` and ``student`` for the memory measurement, or None for none; the
            student's own code in its folder is run.
        training_precision: in which the student was trained, where that is known.
        measure_alternatives: `distill.export.alternatives.measure_alternatives`, which stands right of this package.
    """
    models = {"teacher": teacher, "student": student} | ({"baseline": baseline} if baseline is not None else {})
    check_comparable(task, models)
    logits: dict[str, dict[str, np.ndarray]] = {}
    for role, model in models.items():
        model.to(device)  # type: ignore[arg-type]
        logits[role] = {
            split: predict_logits(model, examples, device=device) for split, examples in validation.items()
        }
    linear: dict[str, np.ndarray] | None = None
    if getattr(student.config, "exact_up_to", 0):
        with linear_form(student):
            linear = {
                split: predict_logits(student, examples, device=device) for split, examples in validation.items()
            }
    measured: dict[str, Any] = {}
    if PartialState().is_main_process:
        examples = validation[task.validation_splits[0]]
        measured = measure(teacher, student, control, settings, device, folders, examples)
        measured["alternatives"] = measure_alternatives(
            task, models, validation, logits, settings, device=device, seed=seed
        )
    described = {role: describe_model(model) for role, model in models.items()}
    if windows := windows_read(teacher, validation):
        described["teacher"]["windows"] = windows
    record = build_record(
        task,
        logits,
        {split: examples.labels for split, examples in validation.items()},
        described,
        stages=stages,
        environment=describe_environment(device, training_precision),
        resamples=settings.resamples,
        seed=seed,
        **measured,
    )
    record["median_length"] = median_length(validation)
    if linear is not None:
        labels = {split: examples.labels for split, examples in validation.items()}
        record["linear_form"] = plain(linear_form_quality(task, linear, logits, labels, settings.resamples, seed))
    record["source"] = {None: "hub", EMBEDDED: EMBEDDED}.get(source, "folder")
    if source is not None and record["source"] == "folder":
        record["data_name"] = plain(Path(os.path.abspath(Path(source).expanduser())).name)
    return record, predictions_frame(logits, validation)


def check_comparable(task: Task, models: Mapping[str, PreTrainedModel]) -> None:
    """Refuse models whose number of labels is not the task's, or whose vocabularies differ."""
    for role, model in models.items():
        if model.config.num_labels != task.num_labels:
            raise UserError(
                f"the {role} has {model.config.num_labels} labels, task {task.name} has {task.num_labels}; "
                f"give a checkpoint that was fine-tuned on {task.name}"
            )
    sizes = {role: model.config.vocab_size for role, model in models.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{role} {size}" for role, size in sizes.items())
        raise UserError(f"the vocabularies differ ({text} entries); teacher and student must share one tokenizer")
