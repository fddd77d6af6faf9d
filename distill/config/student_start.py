"""What `student.checkpoint` names: an encoder of its own, or a student of this project that a task starts from."""

import json
from pathlib import Path

from distill.config.schema import Config

OURS = "efficient_bert"
"""The `model_type` of students."""


def is_student(checkpoint: str | None) -> bool:
    """Tell whether a folder holds a student of this project; a name on the Hub is taken for an encoder."""
    if checkpoint is None:
        return False
    try:
        found = json.loads((Path(checkpoint).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("model_type") == OURS


def other_encoder(config: Config) -> str | None:
    """Return the encoder with a tokenizer of its own that the student is made of; None where the teacher is that."""
    checkpoint = config.student.checkpoint
    return None if is_student(checkpoint) else checkpoint


def earlier_student(config: Config) -> str | None:
    """Return the folder of the student, of the same encoder as the teacher, whose layers the task starts from."""
    checkpoint = config.student.checkpoint
    return checkpoint if is_student(checkpoint) else None
