"""The formats that a student is exported to: what each of them takes, and how it is written."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import BertForSequenceClassification, PreTrainedModel

from distill.config.data_schema import DataConfig
from distill.data.batching import TokenizedExamples
from distill.evaluation.record import Record
from distill.export.bert_folder import deploy_bert
from distill.export.companions import companions_of
from distill.export.deployment import Deployment, Logits, deploy_file
from distill.export.formats import FORMATS
from distill.export.int8 import Int8Texts
from distill.models.flops import attention_name
from distill.models.loading import Classifier
from distill.models.positions import positions_of
from distill.reporting.card_sections import export_section
from distill.tasks import Task
from distill.training.run_folder import RunFolder
from distill.utils.errors import UserError
from pipelines.run.exported_run import write_exported_card
from students import StudentForSequenceClassification, exact_form, exact_length, fold_features, plain_bert


@dataclass(frozen=True)
class Source:
    """What is exported, and where it comes from."""

    student: Classifier
    model: PreTrainedModel
    """The student in the form that is written, of :func:`prepare_form`."""
    task: Task
    data: DataConfig
    run: RunFolder | None
    record: Record | None
    """Of the run."""


def prepare_form(form: str, model: PreTrainedModel, max_length: int) -> PreTrainedModel:
    """Return a student as it is written in a format.

    Args:
        form: onnx, openvino or bert.
        model: the student.
        max_length: of the texts that it is for, in tokens.

    Raises:
        UserError: a BERT cannot do what the student does; says why, and the way out.
    """
    if form != "bert":
        # One that never reads more tokens than it attends exactly needs no graph that asks for a text's length.
        if isinstance(model, StudentForSequenceClassification) and model.config.exact_up_to >= positions_of(model):
            return exact_form(model)
        return fold_features(model)
    if type(model) is BertForSequenceClassification:
        return model
    if not isinstance(model, StudentForSequenceClassification):
        raise UserError(f"--format bert: the student is a {type(model).__name__}; give one that was distilled here")
    exact = exact_length(model.config)
    another = "" if exact else ", or distil one with --student.attention softmax or student.exact_up_to"
    try:
        bert = plain_bert(model)
    except ValueError as error:
        raise UserError(f"--format bert: {error}; use --format onnx{another}") from error
    if max_length > exact:
        raise UserError(
            f"--format bert: the student attends exactly up to {exact} tokens, and its texts have up to {max_length}; "
            f"give --data.max_length {exact} for a BERT that cuts longer ones there, or use --format onnx"
        )
    return bert


def deploy(
    options: argparse.Namespace,
    output: Path,
    source: Source,
    validation: Mapping[str, TokenizedExamples],
    expected: Logits,
    int8: Int8Texts | None = None,
) -> tuple[list[Deployment], list[Path]]:
    """Write what the command line asks for, and return it with the files that stand beside it.

    ``int8`` is what int8 weights are made and judged by, where they are asked for.

    Raises:
        UserError: what was written does not answer as the student does, or cannot be written.
    """
    if options.format != "bert":
        form = FORMATS[options.format]
        beside = companions_of(output, source.student.model, source.student.tokenizer)
        return deploy_file(source.model, output, form, validation, expected, int8=int8, beside=beside), list(beside)
    assert isinstance(source.model, BertForSequenceClassification)
    attention = attention_name(source.student.model.config)
    provenance = {"format": "bert", "student": Path(options.student).resolve().name, "attention": attention}
    run = None if source.run is None else source.run.path.resolve().name
    deployment = deploy_bert(
        source.model,
        source.student.tokenizer,
        output,
        validation,
        expected,
        provenance | {"task": source.task.name, "run": run},
        partial(_write_card, source, attention),
    )
    return [deployment], []


def _write_card(source: Source, attention: str, folder: Path, parity: float) -> None:
    sections = (attention, export_section(folder, attention, parity))
    write_exported_card(folder, source.run, source.record, source.task, source.data, sections)
