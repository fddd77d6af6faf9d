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
from distill.utils.errors import UserError, first_line
from distill.utils.files import write_atomically

Logits = Mapping[str, Mapping[str, np.ndarray]]
"""role -> split -> (n, C)"""


def predictions_frame(logits: Logits, validation: Mapping[str, TokenizedExamples]) -> pd.DataFrame:
    """One row per example: ``id``, ``split``, ``label`` and, per model, a list column ``<role>_logits`` (C,)."""
    parts = []
    for split, examples in validation.items():
        columns: dict[str, Any] = {"id": examples.ids, "split": split, "label": examples.labels}
        for role, by_split in logits.items():
            columns[f"{role}_logits"] = list(by_split[split].astype(np.float32))
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


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
