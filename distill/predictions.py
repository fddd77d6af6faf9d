"""``predictions.parquet``: what every model said about every validation example."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distill.batches import TokenizedExamples
from distill.files import write_atomically

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
