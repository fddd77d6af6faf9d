"""The last phase of task text: language models compared, their training steps timed, record and report."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from distill.benchmark.timing import BLOCKS, PointError, memory_errors, time_interleaved
from distill.config.schema import BYTE, CHARACTER, StageConfig
from distill.data.labels import HIDDEN
from distill.data.text_corpus import VALIDATION
from distill.data.text_windows import TextWindows
from distill.evaluation.predictions_file import write_predictions
from distill.evaluation.record_parts import Interval, StageEntry
from distill.evaluation.text_metrics import TokenLosses, compare_losses, text_metrics, token_losses, unigram_loss
from distill.evaluation.text_record import (
    SCHEMA,
    LanguageModelEntry,
    LossCurve,
    TextRecord,
    TrainingStep,
    write_text_record,
)
from distill.models.flops import attention_name
from distill.objectives.losses import token_labels_loss
from distill.preflight.memory_estimate import saved_bytes
from distill.reporting.text_report import write_text_report
from distill.tasks import TEXT
from distill.training.accelerator import autocast_dtype
from distill.utils.environment import describe_environment
from distill.utils.record_json import from_json, unmeasured
from distill.utils.redaction import publishable
from pipelines.run.baseline import baseline_stage
from pipelines.run.context import DistillationSetup, RunContext
from teachers.finetuning import finetuning_stage

MOST_POINTS = 200
"""Of a curve in the record."""


def compare_language_models(
    context: RunContext,
    setup: DistillationSetup,
    student: PreTrainedModel,
    baseline: PreTrainedModel | None,
) -> None:
    """Write predictions, record and report, and print the tables."""
    config, folder, device = context.config, context.folder, context.device
    windows: Any = setup.validation[VALIDATION]
    has_teacher = config.teacher.epochs != 0
    models = {"teacher": setup.teacher if has_teacher else None, "student": student, "baseline": baseline}
    losses = {role: token_losses(model, windows, device=device) for role, model in models.items() if model is not None}
    if not context.run.accelerator.is_main_process:
        return
    settings = config.comparison.resamples, config.seed
    compared = {role: intervals(losses, role, *settings) for role in ("student", "baseline")}
    train: Any = setup.train
    vocabulary = len(setup.tokenizer)
    results = [folder.result(stage.name) or {} for stage in setup.stages]
    unit = config.data.text_unit or ("wordpiece" if config.model == "masked" else BYTE)
    record = TextRecord(
        schema=SCHEMA,
        task=TEXT,
        model=str(config.model),
        text_unit=unit,
        vocabulary=vocabulary,
        max_length=config.data.max_length,
        split=VALIDATION,
        num_examples=len(windows),
        num_tokens=int(losses["student"].counts.sum()),
        characters_per_token=windows.characters_per_token,
        train_tokens=int((train.labels != HIDDEN).sum()),
        unigram_loss=unigram_loss(train, windows, vocabulary),
        main_metric="bits_per_character" if unit in (BYTE, CHARACTER) else "perplexity",
        seed=config.seed,
        models={role: describe(model, losses.get(role)) for role, model in models.items()},
        retention=compared["student"],
        baseline_retention=compared["baseline"],
        stages=tuple(from_json(StageEntry, result, "stage") for result in results),
        curves=curves(context, setup),
        steps=training_steps(context, models, train),
        environment=describe_environment(device, context.run.accelerator.mixed_precision),
        data_name=publishable(Path(os.path.abspath(Path(str(config.data.dir)).expanduser())).name),
    )
    frame = pd.DataFrame({"id": windows.ids, "split": VALIDATION, "tokens": losses["student"].counts})
    for role, each in losses.items():
        frame[f"{role}_loss"] = each.sums
    write_predictions(frame, folder.path / "predictions.parquet")
    write_text_record(record, folder.record)
    context.run.accelerator.print("\n" + write_text_report(record, folder.path))
    context.run.accelerator.print(f"\nreport: {folder.path / 'report.html'}")


def intervals(losses: Mapping[str, TokenLosses], role: str, resamples: int, seed: int) -> dict[str, Interval]:
    """Return what a model keeps of the teacher, metric by metric; nothing where one of the two is missing."""
    if role not in losses or "teacher" not in losses:
        return {}
    found = compare_losses(losses["teacher"], losses[role], resamples, seed)
    return {name: Interval(*values) for name, values in found.items()}


def describe(model: PreTrainedModel | None, losses: TokenLosses | None) -> LanguageModelEntry:
    """Return metrics and size of a model."""
    if model is None or losses is None:
        return unmeasured(LanguageModelEntry, reason="there is no such model in this run")
    layers = getattr(model.config, "num_hidden_layers", None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return LanguageModelEntry(text_metrics(losses), parameters, layers, attention_name(model.config))


def curves(context: RunContext, setup: DistillationSetup) -> dict[str, LossCurve]:
    """Return the training losses of the phases that learn from the text alone."""
    phases: dict[str, tuple[str, StageConfig]] = {"baseline": ("baseline", baseline_stage(context.config, setup))}
    if context.config.teacher.epochs == 0:
        phases = {"student": phases["baseline"]}
    elif not setup.source.is_trained or context.config.teacher.checkpoint is None:
        phases["teacher"] = ("teacher", finetuning_stage(context.config))
    found = {}
    for role, (name, stage) in phases.items():
        history: Sequence[Mapping[str, float]] = (context.folder.result(name) or {}).get("history") or ()
        each = stage.batch_size * context.config.data.max_length
        kept = history[:: max(1, len(history) // MOST_POINTS)]
        found[role] = LossCurve(
            tuple(int(line["step"]) * each for line in kept), tuple(float(line["labels"]) for line in kept)
        )
    return found


def training_steps(
    context: RunContext, models: Mapping[str, PreTrainedModel | None], train: TextWindows
) -> tuple[TrainingStep, ...]:
    """Time an optimizer step of teacher and student in the same rounds, in the precision of training."""
    length, size = context.config.data.max_length, context.config.baseline.batch_size or 1
    dtype = autocast_dtype(context.run.accelerator)
    timed = {role: model for role, model in models.items() if model is not None and role != "baseline"}
    device = context.device
    generator = np.random.default_rng(0)
    rows = generator.integers(len(train), size=size)
    tokens = np.stack([train.token_ids[train.offsets[row] : train.offsets[row] + length] for row in rows])
    inputs = torch.from_numpy(tokens.astype(np.int64)).to(device)
    labels = torch.from_numpy(train.labels[rows]).to(device)
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    found = []
    try:
        with memory_errors():
            times = time_interleaved(
                lambda: {role: make_step(model, inputs, labels, dtype) for role, model in timed.items()},
                seconds=context.config.comparison.seconds_per_point * len(timed),
                synchronize=synchronize,
            )
    except PointError as error:
        return tuple(
            unmeasured(TrainingStep, model=role, length=length, batch_size=size, reason=str(error)) for role in timed
        )
    for role, model in timed.items():
        blocks = np.log(1000 * np.median(times[role], axis=1))
        middle, spread = blocks.mean(), 2.571 * blocks.std(ddof=1) / np.sqrt(BLOCKS)  # Student's t of 5 degrees
        low, middle, high = (float(np.exp(value)) for value in (middle - spread, middle, middle + spread))
        trained = copy.deepcopy(model).requires_grad_(True)
        kept = saved_bytes(trained, size, length, dtype) / 1e6
        found.append(TrainingStep(role, length, size, middle, low, high, kept))
    return tuple(found)


def make_step(
    model: PreTrainedModel, inputs: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype | None
) -> Callable[[], None]:
    """Return a function that takes one AdamW step of a copy of the model."""
    trained: Any = copy.deepcopy(model).train().requires_grad_(True)
    device = inputs.device.type
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.0, fused=device in ("cpu", "cuda"))

    def step() -> None:
        with torch.autocast(device, dtype, enabled=dtype is not None):
            logits = trained(input_ids=inputs).logits
        token_labels_loss(logits, labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
