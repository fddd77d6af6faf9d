"""What an exported file needs beside it to turn a text into a label: tokenizer and labels.

Both are named after the file, so that several exports share a folder: ``student.onnx`` has ``student.tokenizer.json``
(read by the package tokenizers) and ``student.labels.json``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.evaluation.thresholds import threshold_of
from distill.models.positions import find_positions
from distill.tasks import MULTI_LABEL
from distill.utils.files import write_atomically


def companions_of(output: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[Path, str]:
    """Return the content of the files beside ``output`` by their paths.

    The tokenizer cuts at the model's positions, if these are limited, and does not pad. A tokenizer that is written in
    Python has no file. Labels are a list in the order of the logits, empty for a score; of a multi-label model this
    list is the key ``labels`` beside ``threshold``: a text has those labels whose 1 / (1 + exp(-logit)) reaches it.
    """
    is_regression = model.config.problem_type == "regression" or model.config.num_labels == 1
    named = {} if is_regression else {int(index): name for index, name in (model.config.id2label or {}).items()}
    names = [named[index] for index in sorted(named)]
    meaning: Any = names
    if model.config.problem_type == MULTI_LABEL:
        meaning = {"labels": names, "threshold": threshold_of(model)}
    files = {output.with_name(f"{output.stem}.labels.json"): json.dumps(meaning, ensure_ascii=False) + "\n"}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        own = Tokenizer.from_str(backend.to_str())
        own.no_truncation()
        if positions := find_positions(model):
            own.enable_truncation(positions)
        own.no_padding()
        files[output.with_name(f"{output.stem}.tokenizer.json")] = own.to_str(pretty=True) + "\n"
    return files


def write_companions(files: Mapping[Path, str], exported: Sequence[Path]) -> None:
    """Write the files that stand beside ``exported``, before these get their names.

    Where other ones stood there, the exported files that they belong to go first: after a kill no file has the labels
    or the tokenizer of another student beside it.
    """
    if any(_differs(path, content) for path, content in files.items()):
        for path in exported:
            path.unlink(missing_ok=True)
    for path, content in files.items():
        write_atomically(path, content)


def _differs(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") != content
    except (OSError, ValueError):
        return True
