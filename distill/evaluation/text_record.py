"""The record of task text: what the language models predict, what was kept, and what a training step costs.

It has the keys of a classification's record where they mean the same. Losses are in nats a token; lower is better, so
that a retention is teacher / student.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.evaluation.record import plain
from distill.evaluation.record_parts import Interval, Metrics, StageEntry
from distill.tasks import TEXT
from distill.utils.errors import UserError
from distill.utils.files import read_json, write_atomically
from distill.utils.record_json import JsonObject, from_json, to_json

SCHEMA = 1


@dataclass(frozen=True)
class LanguageModelEntry(JsonObject):
    """One model; all null, with a ``reason``, where there is none."""

    metrics: Metrics | None
    parameters: int | None
    layers: int | None
    attention: str | None
    reason: str | None = None
    note: str | None = None
    """What its figures do not mean, where that is not plain."""


@dataclass(frozen=True)
class TrainingStep(JsonObject):
    """What one optimizer step costs, measured apart from training."""

    model: str
    length: int
    """Tokens of a window."""
    batch_size: int
    milliseconds: float | None
    low: float | None
    high: float | None
    activation_megabytes: float | None
    """Kept for the backward pass, beside the weights."""
    reason: str | None = None


@dataclass(frozen=True)
class LossCurve(JsonObject):
    """The training loss of a phase that learns to predict the text."""

    tokens: tuple[int, ...]
    """Seen so far."""
    loss: tuple[float, ...]
    """Mean since the entry before, in nats a token."""


@dataclass(frozen=True, kw_only=True)
class TextRecord(JsonObject):
    """What a run of task text found; every number that could not be measured is null and has a reason."""

    schema: int
    task: str
    model: str
    """causal or masked."""
    text_unit: str
    vocabulary: int
    max_length: int
    split: str
    num_examples: int
    """Windows of the split."""
    num_tokens: int
    """That were predicted there."""
    characters_per_token: float
    unknown_share: float
    """Of the split's tokens, those that the vocabulary does not have."""
    train_tokens: int
    """Of one pass."""
    unigram_loss: float
    """Of predicting every token by how often it occurs in train."""
    main_metric: str
    seed: int
    models: Mapping[str, LanguageModelEntry]
    retention: Mapping[str, Interval]
    """Teacher / student; empty without a teacher."""
    baseline_retention: Mapping[str, Interval]
    stages: tuple[StageEntry, ...]
    curves: Mapping[str, LossCurve]
    """Of teacher, baseline or the student that was trained alone."""
    steps: tuple[TrainingStep, ...]
    environment: Mapping[str, Any]
    data_name: str


def write_text_record(record: TextRecord, path: Path) -> None:
    """Write a record, whole or not at all."""
    text = json.dumps(plain(to_json(record)), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def read_text_record(path: Path | str) -> TextRecord:
    """Read the record of a run folder or a file.

    Raises:
        UserError: it is missing, torn or of another task.
    """
    path = Path(path)
    path = path / "record.json" if path.is_dir() else path
    try:
        value = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; a finished run of task text writes it") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}); write the record again") from None
    if not isinstance(value, dict) or value.get("task") != TEXT or value.get("schema") != SCHEMA:
        raise UserError(f"{path} is no record of task text in schema {SCHEMA}")
    return from_json(TextRecord, value, str(path))
