"""The record of a comparison as a file: valid JSON, checked when it is read."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.tasks import CUSTOM
from distill.utils.errors import UserError
from distill.utils.files import write_atomically
from distill.utils.redaction import publishable

SCHEMA = 1

Record = dict[str, Any]
Types = tuple[type, ...]

NULL = type(None)
NUMBER: Types = (int, float, NULL)

RECORD_KEYS: dict[str, Types] = {
    "schema": (int,),
    "task": (str,),
    "split": (str,),
    "num_examples": (int,),
    "main_metric": (str,),
    "seed": (int, NULL),
    "models": (dict,),
    "retention": (dict,),
    "agreement": NUMBER,
    "speed": (list,),
    "memory": (list,),
    "crossover_length": (int, NULL),
    "stages": (list,),
    "environment": (dict,),
}
MODEL_KEYS: dict[str, Types] = {
    "metrics": (dict, NULL),
    "parameters": (int, NULL),
    "layers": (int, NULL),
    "attention": (str, NULL),
    "flops": (int, NULL),
}
MODELS = ("teacher", "student", "baseline")
RETENTION_KEYS: dict[str, Types] = {"value": NUMBER, "low": NUMBER, "high": NUMBER}
POINT_KEYS: dict[str, Types] = {"device": (str,), "dtype": (str,), "batch_size": (int,), "length": (int,)}
SPEED_NUMBERS = ("teacher_ms", "student_ms", "speedup", "low", "high", "depth_speedup", "attention_speedup")
SPEED_KEYS: dict[str, Types] = POINT_KEYS | dict.fromkeys(SPEED_NUMBERS, NUMBER)
DEPLOYMENT_NUMBERS = ("student_ms", "deployed_ms", "speedup", "low", "high")
DEPLOYMENT_SPEED_KEYS: dict[str, Types] = POINT_KEYS | dict.fromkeys(DEPLOYMENT_NUMBERS, NUMBER)
DEPLOYMENT_KEYS: dict[str, Types] = {
    "format": (str,),
    "dtype": (str,),
    "file": (str,),
    "megabytes": NUMBER,
    "parity": NUMBER,
    "metrics": (dict, NULL),
    "speed": (list,),
}
"""Of a part that only pipelines/export.py adds."""
ALTERNATIVE_NUMBERS = (
    *("teacher_ms", "student_ms", "alternative_ms", "speedup", "low", "high"),
    *("over_student", "over_student_low", "over_student_high"),
)
ALTERNATIVE_SPEED_KEYS: dict[str, Types] = POINT_KEYS | dict.fromkeys(ALTERNATIVE_NUMBERS, NUMBER)
ALTERNATIVE_KEYS: dict[str, Types] = {
    "name": (str,),
    "format": (str,),
    "dtype": (str,),
    "metrics": (dict, NULL),
    "retention": (dict, NULL),
    "agreement": NUMBER,
    "megabytes": NUMBER,
    "speed": (list,),
}
"""Of a part that records of earlier versions lack."""
STAGE_KEYS: dict[str, Types] = {
    "name": (str,),
    "seconds": NUMBER,
    "examples_per_second": NUMBER,
    "metrics": (dict, NULL),
    "fidelity": (list, dict, NULL),
}
_TYPE_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    NULL: "null",
}


def _check(value: Any, keys: Mapping[str, Types], path: str, where: str) -> None:
    """Raise UserError unless ``value`` is an object that has all ``keys`` with values of their types."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: {path or 'the file'} is {_kind(value)}, not an object")
    for key, types in keys.items():
        name = f"{path}.{key}" if path else key
        if key not in value:
            raise UserError(f"{where}: {name} is missing; write the record again with pipelines/compare.py")
        # bool is an int to Python and nowhere else.
        if not isinstance(value[key], types) or isinstance(value[key], bool):
            expected = " or ".join(_TYPE_NAMES[kind] for kind in types)
            raise UserError(f"{where}: {name} is {_kind(value[key])}, not {expected}")


def _kind(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def validate_record(record: Any, where: str = "record") -> Record:
    """Return ``record`` if it has every key of the schema with the right type.

    Args:
        record: what was read.
        where: named in the message, such as the file's name.

    Raises:
        UserError: naming the first key that is missing or has the wrong type, or an unknown schema.
    """
    _check(record, {"schema": RECORD_KEYS["schema"]}, "", where)
    if record["schema"] != SCHEMA:
        raise UserError(f"{where}: schema {record['schema']} is unknown; this version reads schema {SCHEMA}")
    _check(record, RECORD_KEYS, "", where)
    _check(record["models"], dict.fromkeys(MODELS, (dict,)), "models", where)
    for name in MODELS:
        _check(record["models"][name], MODEL_KEYS, f"models.{name}", where)
        metrics = record["models"][name]["metrics"] or {}
        _check(metrics, dict.fromkeys(metrics, NUMBER), f"models.{name}.metrics", where)
    for name in ("teacher", "student"):
        path = f"models.{name}.metrics"
        _check(record["models"][name]["metrics"], {record["main_metric"]: NUMBER}, path, where)
    _check(record["retention"], {record["main_metric"]: (dict,)}, "retention", where)
    for metric, entry in record["retention"].items():
        _check(entry, RETENTION_KEYS, f"retention.{metric}", where)
    for part, keys in (("speed", SPEED_KEYS), ("memory", POINT_KEYS), ("stages", STAGE_KEYS)):
        for index, entry in enumerate(record[part]):
            _check(entry, keys, f"{part}[{index}]", where)
    for part, keys, speed_keys in (
        ("deployments", DEPLOYMENT_KEYS, DEPLOYMENT_SPEED_KEYS),
        ("alternatives", ALTERNATIVE_KEYS, ALTERNATIVE_SPEED_KEYS),
    ):
        for index, entry in enumerate(record.get(part, [])):
            _check(entry, keys, f"{part}[{index}]", where)
            for position, point in enumerate(entry["speed"]):
                _check(point, speed_keys, f"{part}[{index}].speed[{position}]", where)
    for metric, entry in record.get("gain", {}).items():
        _check(entry, RETENTION_KEYS, f"gain.{metric}", where)
    return record


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


def write_record(record: Record, path: Path | str) -> None:
    """Write a valid record as JSON, whole or not at all."""
    text = json.dumps(validate_record(record), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def read_record(path: Path | str) -> Record:
    """Read and check ``record.json``, or the one in a run folder.

    Raises:
        UserError: the file is missing, torn or not a record.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "record.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a finished run or pipelines/compare.py writes it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}); write the record again") from None
    return validate_record(record, str(path))


def model_metrics(record: Record, model: str) -> dict[str, float | None]:
    """Return the metrics of one model, empty where it was not compared."""
    return (record["models"].get(model) or {}).get("metrics") or {}


def share_of_teacher(record: Record, model: str) -> float | None:
    """Return the model's main metric divided by the teacher's, None where that has no meaning."""
    name = record["main_metric"]
    teacher, other = model_metrics(record, "teacher").get(name), model_metrics(record, model).get(name)
    return None if other is None or not teacher or teacher < 0 else other / teacher


def dataset(record: Record) -> str:
    """Name the data: a task, its embedded miniature, which never passes for it, or the file of somebody's own task."""
    if record.get("source") == "embedded":
        return f"embedded miniature {record['task']}"
    return record["data_name"] if record["task"] == CUSTOM and record.get("data_name") else record["task"]
