"""``predictions.parquet``: what every model said about every validation example."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from distill.data.batching import TokenizedExamples
from distill.data.source_errors import require_columns
from distill.evaluation.metrics import HALF, predictions
from distill.evaluation.thresholds import Thresholds
from distill.tasks import Task
from distill.utils.errors import UserError, first_line
from distill.utils.files import write_atomically

Logits = Mapping[str, Mapping[str, np.ndarray]]
"""role -> split -> (n, C)"""


def predictions_frame(
    logits: Logits, validation: Mapping[str, TokenizedExamples], thresholds: Thresholds | None = None
) -> pd.DataFrame:
    """One row per example: ``id``, ``split``, ``label`` and, per model, a list column ``<role>_logits`` (C,).

    Of a multi-label task ``label`` is a list of 0 and 1, in the order of the logits, and ``<role>_threshold`` stands
    beside the logits: the probability from which on the model says that there is the label.
    """
    parts = []
    for split, examples in validation.items():
        labels = list(examples.labels.astype(np.int8)) if examples.labels.ndim == 2 else examples.labels
        columns: dict[str, Any] = {"id": examples.ids, "split": split, "label": labels}
        for role, by_split in logits.items():
            columns[f"{role}_logits"] = list(by_split[split].astype(np.float32))
            if role in (thresholds or {}):
                columns[f"{role}_threshold"] = (thresholds or {})[role]
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def labels_of(predicted: pd.DataFrame) -> np.ndarray:
    """Return the true classes or scores (n,), or of a multi-label task 0 and 1 for every label (n, C)."""
    labels = predicted["label"].to_numpy()
    return np.stack([np.asarray(each, np.int64) for each in labels]) if labels.dtype == object else labels


def answers_of(task: Task, predicted: pd.DataFrame, role: str) -> np.ndarray:
    """Return what a model answered, as `distill.evaluation.metrics.predictions` does, at its own threshold."""
    name = f"{role}_threshold"
    threshold = float(predicted[name].iloc[0]) if name in predicted else HALF
    return predictions(task, np.stack(predicted[f"{role}_logits"].to_list()), threshold)


def write_predictions(predicted: pd.DataFrame, path: Path | str) -> None:
    """Write ``predictions.parquet``, whole or not at all."""
    buffer = io.BytesIO()
    predicted.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue())


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read ``predictions.parquet``.

    Raises:
        UserError: the file is missing or torn, or lacks a column.
    """
    try:
        predicted = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a finished run or pipelines/compare.py --output writes it") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); write it again") from error
    require_columns(("id", "split", "label", "teacher_logits", "student_logits"), list(predicted.columns), path)
    return predicted
