"""A student as a folder that any server of BERT classifiers takes: ``model_type: bert``, and no code of its own."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from distill.data.batching import TokenizedExamples
from distill.export.deployment import Deployment, Logits, check_parity, largest_difference, predict_validation
from distill.models.saving import save_pretrained
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, replace_directory

TOLERANCE = 1e-5
"""Largest difference of a logit between the folder and the student, of the largest logit where that is above 1."""
PROVENANCE = "export.json"
"""File in the folder that says what it was made of, by which a later export knows that it may replace the folder."""


def check_bert_output(output: Path) -> None:
    """Refuse a place where something lies that is no earlier export, before minutes are spent on it.

    Raises:
        UserError: names what lies there and the way out.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UserError(f"--output {output} is a file or a link; --format bert writes a folder: give a new name")
    if output.is_dir() and any(output.iterdir()) and not (output / PROVENANCE).is_file():
        raise UserError(
            f"--output {output} holds files that no export to bert left there; give a new folder, or remove it first"
        )


def deploy_bert(
    bert: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    validation: Mapping[str, TokenizedExamples],
    expected: Logits,
    provenance: Mapping[str, object],
    write_card: Callable[[Path, float], object],
) -> Deployment:
    """Write ``bert`` with its tokenizer to the folder ``output``, after what was written was read back and compared.

    The folder gets its name when all of it is there; until then it lies in a hidden one that does not stay.

    Args:
        bert: on the CPU, in eval mode and fp32, of the same function as the student.
        output: its parent must exist; an earlier export there is replaced.
        validation: what is predicted, of no more tokens than ``bert`` has positions.
        expected: of the student in torch, by `distill.export.deployment.predict_validation`.
        provenance: what the folder says about where it comes from.
        write_card: writes README.md, given the folder and the largest difference of a logit.

    Raises:
        UserError: the folder does not answer as the student does, or cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(suffix=UNFINISHED, prefix=".export-", dir=output.parent) as folder:
            aside = Path(folder) / output.name
            save_pretrained(bert, tokenizer, aside)
            # safetensors writes for this user alone; a server is often another one.
            (aside / "model.safetensors").chmod((aside / "config.json").stat().st_mode)
            model = BertForSequenceClassification.from_pretrained(aside).eval()
            logits = predict_validation(model, validation)
            largest = max(float(np.abs(each).max()) for each in expected.values())
            attention = str(provenance["attention"])
            check_parity(expected, logits, attention, form="BERT", tolerance=TOLERANCE * max(1.0, largest))
            parity = largest_difference(expected, logits)
            content = json.dumps({**provenance, "parity": parity}, indent=1, ensure_ascii=False)
            (aside / PROVENANCE).write_text(content + "\n", encoding="utf-8")
            write_card(aside, parity)
            replace_directory(aside, output)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror or error}") from error
    return Deployment("bert", "float32", output, model, logits)
