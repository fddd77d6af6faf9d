"""The last phase of task text: language models compared, their training steps timed, record and report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from distill.config.schema import BYTE, CHARACTER
from distill.data.batching import collate
from distill.data.labels import HIDDEN
from distill.data.text_corpus import VALIDATION
from distill.data.text_tokenizers import unit_of
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
from distill.reporting.model_card import write_language_model_card
from distill.reporting.text_report import write_text_report
from distill.tasks import CAUSAL, TEXT
from distill.training.accelerator import autocast_dtype
from distill.utils.environment import describe_environment
from distill.utils.record_json import from_json, unmeasured
from distill.utils.redaction import publishable
from pipelines.run.baseline import baseline_stage
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.text_steps import time_steps
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
    unit = unit_of(setup.tokenizer)
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
        unknown_share=windows.unknown_share,
        train_tokens=len(train.token_ids),
        unigram_loss=unigram_loss(train, windows, vocabulary, around_windows(config.model, setup)),
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
    write_language_model_card(record, folder.student)
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
    size = parameters, layers, attention_name(model.config)
    return LanguageModelEntry(text_metrics(losses), *size, note=what_it_is_not(model))


def what_it_is_not(model: Any) -> str | None:
    """Return what a reader might take a model's figures for that they are not."""
    if not getattr(model.config, "causal", False):
        return "of masked tokens, predicted from both sides: no figure of writing, and no length of a code"
    if not model.config.mechanism.continues:
        return "which earlier tokens a token meets depends on later ones: not the loss of writing token by token"
    return None


def around_windows(kind: str | None, setup: DistillationSetup) -> list[int]:
    """Return the special tokens that stand around every window of a masked model."""
    tokenizer: Any = setup.tokenizer
    return [] if kind == CAUSAL else [tokenizer.cls_token_id, tokenizer.sep_token_id]


def curves(context: RunContext, setup: DistillationSetup) -> dict[str, LossCurve]:
    """Return the training losses of the phases that learned from the text alone."""
    phases = {"teacher": finetuning_stage(context.config), "baseline": baseline_stage(context.config, setup)}
    found = {}
    for name, stage in phases.items():
        history = (context.folder.result(name) or {}).get("history") or []
        role = "student" if name == "baseline" and context.config.teacher.epochs == 0 else name
        if history:
            found[role] = loss_curve(history, len(setup.train), stage.batch_size, context.config.data.max_length)
    return found


def loss_curve(history: Sequence[Mapping[str, float]], rows: int, batch_size: int, length: int) -> LossCurve:
    """Return a curve of at most `MOST_POINTS` entries, each the mean of the lines of a history since the one before.

    Args:
        history: its lines have ``step``, at equal distances but for the last, and ``labels``, the mean since then.
        rows: windows of train, each of ``length`` tokens; a last batch of an epoch may have fewer than the others.
    """
    per_epoch = -(-rows // batch_size)
    group = -(-len(history) // MOST_POINTS)
    groups = [history[start : start + group] for start in range(0, len(history), group)]
    tokens, losses = [], []
    for lines in groups:
        epochs, steps = divmod(int(lines[-1]["step"]), per_epoch)
        tokens.append((epochs * rows + steps * batch_size) * length)
        losses.append(float(np.mean([line["labels"] for line in lines])))
    return LossCurve(tuple(tokens), tuple(losses))


def training_steps(
    context: RunContext, models: Mapping[str, PreTrainedModel | None], train: TextWindows
) -> tuple[TrainingStep, ...]:
    """Time an optimizer step of teacher and student in the precision of training."""
    length, size = context.config.data.max_length, context.config.baseline.batch_size or 1
    timed = {role: model for role, model in models.items() if model is not None and role != "baseline"}
    rows = np.random.default_rng(0).integers(len(train), size=size)
    starts = np.minimum(train.offsets[rows], len(train.token_ids) - length)  # a passage may be shorter, and the last
    tokens = train.token_ids[starts[:, None] + np.arange(length)]
    inputs = torch.from_numpy(tokens.astype(np.int64)).to(context.device)
    _, wanted = collate(train, rows, context.device)
    labels = torch.nn.functional.pad(wanted[:, :length], (0, max(0, length - wanted.shape[1])), value=HIDDEN)
    seconds = context.config.comparison.seconds_per_point * len(timed)
    return time_steps(timed, inputs, labels, autocast_dtype(context.run.accelerator), seconds)
