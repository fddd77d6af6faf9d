"""Two finished runs, compared bit by bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from safetensors.torch import load_file

MODELS = ("teacher", "student", "baseline")
TIMES = ("seconds", "checkpoint_seconds", "examples_per_second", "teacher_cache")


def differences(one: Path, other: Path) -> list[str]:
    """Name everything in which two runs differ that no clock has a part in; empty: bit-equal."""
    first, second = (_facts(run) for run in (one, other))
    return [name for name in first | second if first.get(name) != second.get(name)]


def _facts(run: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    predictions = pandas.read_parquet(run / "predictions.parquet")
    for model in MODELS:
        tensors = load_file(run / model / "model.safetensors")
        facts[f"{model} weights"] = {name: (str(x.dtype), x.shape, x.numpy().tobytes()) for name, x in tensors.items()}
        facts[f"{model} logits"] = np.stack(predictions[f"{model}_logits"].to_list()).tobytes()
    for path in run.glob("checkpoints/*/result.json"):  # loss histories, held-out scores, metrics, fidelity
        result = json.loads(path.read_text())
        # A tokenizer that was used writes down other settings of truncation than one that was just loaded.
        result["files"] = {
            name: digest for name, digest in result["files"].items() if not name.startswith("tokenizer")
        }
        facts |= {f"{name} of {path.parent.name}": result[name] for name in result if name not in TIMES}
    record = json.loads((run / "record.json").read_text())
    facts |= {f"{name} of the record": record[name] for name in ("models", "retention", "agreement")}
    names = (path.relative_to(run).as_posix() for path in run.rglob("*"))
    # TensorBoard adds a file at every start.
    facts["list of files"] = sorted(name for name in names if not name.startswith("tensorboard"))
    return facts
