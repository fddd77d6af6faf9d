"""Save a model with its tokenizer, as a folder that stands alone: nothing of where it came from is left to run."""

import copy
import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.models.positions import find_positions

FOREIGN_CODE = ("auto_map", "custom_pipelines")
"""Keys by which a configuration names code that loading with ``trust_remote_code`` runs, of other repositories too."""


def save_pretrained(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, with_code: bool = False
) -> None:
    """Save model and tokenizer into ``folder``; the tokenizer cuts at the positions that this model has.

    What a teacher's files say about code of their own is left out: of the code that a student's folder names, all lies
    in that folder. ``with_code`` keeps a teacher's, of whose code a copy is saved beside it.
    """
    model.save_pretrained(folder)
    for_model(tokenizer, model).save_pretrained(folder)
    if with_code:
        return
    ours = getattr(model, "auto_map", None)
    for path in folder.glob("*.json"):
        if path.name == "tokenizer.json" or path.name.endswith(".index.json"):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = without_code(content)
        if path.name == "config.json" and ours is not None:
            kept["auto_map"] = dict(ours)
        if kept != content:
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def for_model(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """Return a copy of a tokenizer that cuts texts, on request, at the model's positions, and of itself not at all."""
    own = copy.deepcopy(tokenizer)
    positions = find_positions(model)
    if positions is not None:
        own.model_max_length = positions
    backend: Any = getattr(own, "backend_tokenizer", None)
    if backend is not None:  # it remembers how it was last called, and would be saved so
        backend.no_truncation()
        backend.no_padding()
    return own


def without_code(content: Any) -> Any:
    """Return JSON content without the keys of `FOREIGN_CODE`, at any depth."""
    if isinstance(content, dict):
        return {key: without_code(value) for key, value in content.items() if key not in FOREIGN_CODE}
    if isinstance(content, list):
        return [without_code(value) for value in content]
    return content
