"""The record of a comparison: valid JSON, checked when it is read; its schema is the dataclasses themselves."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distill.benchmark.points import MemoryPoint, NoisePoint, SpeedPoint, ThroughputPoint
from distill.config.attention_fit import AttentionFit
from distill.config.copies_choice import CopiesChoice
from distill.config.shape_search import ShapeSearch
from distill.evaluation.record_parts import (
    AlternativeEntry,
    DeploymentEntry,
    LinearForm,
    Metrics,
    ModelEntries,
    Quality,
    StageEntry,
    UnlabelledEntry,
)
from distill.tasks import CUSTOM, TEXT
from distill.utils.errors import UserError
from distill.utils.files import read_json, write_atomically
from distill.utils.record_json import ADDED_LATER, JsonObject, from_json, to_json
from distill.utils.redaction import publishable

SCHEMA = 1
MODELS = ("teacher", "student", "baseline")


@dataclass(frozen=True, kw_only=True)
class Record(Quality, JsonObject):
    """One comparison; every number that could not be measured is null and has a reason."""

    schema: int
    task: str
    split: str
    num_examples: int
    main_metric: str
    seed: int | None
    models: ModelEntries
    speed: tuple[SpeedPoint, ...]
    noise: NoisePoint | None = field(default=None, metadata=ADDED_LATER)
    throughput: ThroughputPoint | None = field(default=None, metadata=ADDED_LATER)
    memory: tuple[MemoryPoint, ...]
    crossover_length: int | None
    crossover_reason: str | None = None
    stages: tuple[StageEntry, ...]
    alternatives: tuple[AlternativeEntry, ...] = field(default=(), metadata=ADDED_LATER)
    environment: Mapping[str, Any]
    reasons: Mapping[str, str] | None = None
    """Path of a number that was not finite to why it is null."""
    median_length: int | None = None
    """Of the validation texts, in tokens."""
    linear_form: LinearForm | None = None
    source: str | None = None
    """Where the examples came from: hub, folder or embedded."""
    data_name: str | None = None
    """Of the file or folder that they were read from."""
    deployments: tuple[DeploymentEntry, ...] = ()
    """What pipelines/export.py added."""
    unlabelled: UnlabelledEntry | None = None
    """Texts without labels that the stages read, where there were any."""
    search: ShapeSearch | None = None
    """How the student's shape was found, where it was asked for by its speed."""
    attention_fit: AttentionFit | None = None
    """How the mechanisms of the layers were found, where they were asked for."""
    copies_choice: CopiesChoice | None = None
    """Which altered copies were tried, where that was asked for."""


def parse_record(value: Any, where: str = "record") -> Record:
    """Return what JSON says as a record.

    Args:
        value: what was read.
        where: named in the message, such as the file's name.

    Raises:
        UserError: naming the first key that is missing or has the wrong type, or an unknown schema.
    """
    if isinstance(value, dict) and isinstance(value.get("schema"), int) and value["schema"] != SCHEMA:
        raise UserError(f"{where}: schema {value['schema']} is unknown; this version reads schema {SCHEMA}")
    if isinstance(value, dict) and value.get("task") == TEXT:
        raise UserError(f"{where}: it is of a language model; this is for models of tasks with labels")
    record = from_json(Record, value, where)
    for role in ("teacher", "student"):
        path, metrics = f"models.{role}.metrics", record.models[role].metrics
        if metrics is None:
            raise UserError(f"{where}: {path} is null, not an object")
        _require(metrics, record.main_metric, path, where)
    _require(record.retention, record.main_metric, "retention", where)
    return record


def _require(values: Mapping[str, Any], metric: str, path: str, where: str) -> None:
    if metric not in values:
        raise UserError(f"{where}: {path}.{metric} is missing; write the file again")


def finish_record(record: Record) -> Record:
    """Return a record as it will be read again: plain numbers, those that are not finite null with a reason."""
    values = to_json(record)
    if broken := not_finite(values):
        values["reasons"] = {**(record.reasons or {}), **dict.fromkeys(broken, "not a finite number")}
    return parse_record(plain(values))


def plain(value: Any) -> Any:
    """Turn numpy scalars and arrays and tuples into JSON's own kinds, NaN and infinities into null.

    Texts lose what must not be published: some are messages of libraries, which quote paths.
    """
    if isinstance(value, str):
        return publishable(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def not_finite(value: Any, path: str = "") -> list[str]:
    """Return the dotted paths of all numbers in ``value`` that are NaN or infinite."""
    if isinstance(value, Mapping):
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple | np.ndarray):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return [path] if isinstance(value, float | np.floating) and not math.isfinite(value) else []
    return [found for name, item in items for found in not_finite(item, name)]


def record_text(record: Record) -> str:
    """Return a record as JSON."""
    return json.dumps(to_json(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_record(record: Record, path: Path | str) -> None:
    """Write a record, whole or not at all."""
    write_atomically(path, record_text(record))


def read_record(path: Path | str) -> Record:
    """Read and check ``record.json``, or the one in a run folder.

    Raises:
        UserError: the file is missing, torn or not a record.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "record.json"
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a finished run or pipelines/compare.py writes it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}); write the record again") from None
    return parse_record(record, str(path))


def model_metrics(record: Record, model: str) -> Metrics:
    """Return the metrics of one model, empty where it was not compared."""
    return record.models[model].metrics or {}


def share_of_teacher(record: Record, model: str) -> float | None:
    """Return the model's main metric divided by the teacher's, None where that has no meaning."""
    name = record.main_metric
    teacher, other = model_metrics(record, "teacher").get(name), model_metrics(record, model).get(name)
    return None if other is None or not teacher or teacher < 0 else other / teacher


def dataset(record: Record) -> str:
    """Name the data: a task, its embedded miniature, which never passes for it, or the file of somebody's own task."""
    return (
        f"embedded miniature {record.task}" if record.source == "embedded" else own_name(record.task, record.data_name)
    )


def own_name(task: str, data_name: str | None) -> str:
    """Return the name of a task, of somebody's own that of its file."""
    return data_name if task == CUSTOM and data_name else task
