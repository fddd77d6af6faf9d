"""Export a student: checked against torch, scored and timed again.

    python pipelines/export.py --student runs/sst2/student --format onnx --output student.onnx --int8
    python pipelines/export.py --student runs/sst2/student --format openvino --output student.xml --int8
    python pipelines/export.py --student runs/sst2/student --format bert --output served
    python pipelines/export.py --student DIR --output FILE --task sst2 --data.dir DATA

onnx: a file, which takes any batch and any length up to the student's positions. It is left only if its logits are
within 1e-4 of torch's on all validation data. --int8 adds STEM.int8.onnx with int8 weights, but for those layers
without which a metric would fall by more than half a point on held-out texts of train. Beside them stand tokenizer
and labels, STEM.tokenizer.json and STEM.labels.json (STEM is FILE without .onnx).

openvino: the same as FILE.xml with its weights in FILE.bin, for OpenVINO; int8 activations too, calibrated on texts of
train. It needs the packages openvino and nncf.

bert: a folder with a BertForSequenceClassification and its tokenizer, for students whose attention is exact: without
code of its own, so that transformers alone loads it. It is left only if its logits are within 1e-5 of the student's.

The figures go into the run's record and report; without a run folder they go into STEM.json, or into the folder.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.config.data_options import add_data_options
from distill.tasks import task_names
from distill.utils.cli import Parser, positive, positive_seconds, run
from distill.utils.errors import UserError

if TYPE_CHECKING:
    from distill.data.batching import TokenizedExamples
    from distill.evaluation.record_parts import DeploymentEntry


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--student", required=True, metavar="DIR", help="classifier, as save_pretrained leaves it")
    add("--format", choices=("onnx", "openvino", "bert"), default="onnx", help="a file, or a plain BERT folder")
    add("--output", required=True, metavar="FILE", help="file to write, such as student.onnx; of bert the folder")
    add(
        "--int8",
        action="store_true",
        help="also write STEM.int8.onnx (or .xml; STEM: FILE without that) with int8 weights",
    )
    add("--run_dir", metavar="RUN", help="run folder of the student (default: the one that the student lies in)")
    add("--task", metavar="TASK", help=f"needed without a run folder; one of {', '.join(task_names())}")
    add_data_options(parser)
    lengths, default = [32, 128, 512], "(default %(default)s)"
    add("--lengths", type=positive, nargs="+", default=lengths, metavar="TOKENS", help=f"lengths to time {default}")
    add("--batch-sizes", type=positive, nargs="+", default=[1, 32], metavar="N", help=f"batch sizes {default}")
    seconds = "time for each batch size and length, on one thread and on all"
    add("--seconds-per-point", type=positive_seconds, default=2.0, metavar="SECONDS", help=f"{seconds} {default}")
    add("--trust-remote-code", action="store_true", help="run the code that a checkpoint brings along")
    return parser.parse_args(arguments)


def main() -> None:
    """Export, check, measure, write the figures down and print them."""
    options = parse()
    exported = export(options)
    # Here and not above: --help and a mistyped option need not wait for torch.
    from distill.reporting.measurement_tables import deployment_cells, deployment_speed_cells
    from distill.reporting.tables import text_table

    entries = exported.deployments
    tables = (deployment_cells(exported.metrics, entries), deployment_speed_cells(entries))
    print("\n\n".join(text_table(cells) for cells in tables if cells.rows))
    print(f"\nwritten: {', '.join(map(str, exported.written))}")


@dataclass(frozen=True)
class Exported:
    """What is told about an export."""

    metrics: Mapping[str, float | None]
    """Of the student in torch."""
    deployments: Sequence["DeploymentEntry"]
    written: list[Path]


def export(options: argparse.Namespace) -> Exported:
    """Export, check and measure, and write the figures into the run's record or beside what was written."""
    from distill.data.batching import spread
    from distill.data.columns import print_found_columns
    from distill.data.inspection import print_doubts
    from distill.data.splits import load_data, resolve_task, take
    from distill.data.tokenization import tokenize
    from distill.evaluation.comparison import check_comparable, describe_model
    from distill.evaluation.metrics import HALF, compute_metrics, metrics_over_splits
    from distill.evaluation.predict import settle_threshold
    from distill.evaluation.record import model_metrics, plain, read_record, write_record
    from distill.evaluation.thresholds import threshold_of
    from distill.export.deployment import (
        describe_deployments,
        predict_validation,
        with_deployments,
    )
    from distill.export.deployment_speed import measure_latency
    from distill.export.int8 import CALIBRATION_TEXTS, Int8Texts
    from distill.models.inputs import reading_of
    from distill.models.loading import check_checkpoint, check_max_length, load_for_task
    from distill.utils.record_json import to_json
    from pipelines.run.exported_run import (
        answers_of_teacher,
        check_same_student,
        find_run,
        length_of_run,
        rewrite_report,
        task_and_data,
    )
    from pipelines.run.exports import Source, deploy, prepare_form

    output = writable_output(options)
    check_checkpoint(options.student, "student")
    folder = find_run(options.student, options.run_dir)
    record = read_record(folder.record) if folder else None
    name, data = task_and_data(folder, options)
    task = resolve_task(name, data)
    print_found_columns(task, data)
    student = load_for_task(options.student, "student", task, trust_remote_code=options.trust_remote_code)
    check_comparable(task, {"student": student.model})
    check_max_length({"student": student}, data.max_length, pairs=len(task.text_columns) > 1)
    model = prepare_form(options.format, student.model, data.max_length)
    reading = reading_of(student.model, student.tokenizer)
    seen = load_data(task, data)  # the rows of the run, and what it held out; of more rows it would be another part
    splits = load_data(task, replace(data, max_train_examples=None))
    held_out = tokenize(seen.held_out, student.tokenizer, data.max_length, **reading)
    if task.multi_label:  # one that was chosen elsewhere stays
        settle_threshold(task, student.model, held_out, "cpu")
    threshold = threshold_of(student.model) if task.multi_label else HALF
    texts = splits.validation

    def tokens(length: int) -> "dict[str, TokenizedExamples]":
        return {split: tokenize(part, student.tokenizer, length, **reading) for split, part in texts.items()}

    validation = tokens(data.max_length)
    print_doubts(task, data, splits, validation, student.tokenizer)
    labels = {split: examples.labels for split, examples in validation.items()}
    expected = predict_validation(student.model, validation)
    if folder:
        # A plain BERT may read shorter texts than the student did when it was compared.
        compared = length_of_run(folder) if options.format == "bert" else None
        shorter = compared is not None and compared > data.max_length
        answers = predict_validation(student.model, tokens(compared)) if compared and shorter else expected
        check_same_student(folder, answers, list(validation))
    source = Source(student, model, task, data, folder, record)
    judge = None
    if options.int8:
        some = take(seen.train, spread(len(seen.train), CALIBRATION_TEXTS))
        calibration = tokenize(some, student.tokenizer, data.max_length, **reading)
        judge = Int8Texts(calibration, held_out, partial(compute_metrics, task, threshold=threshold))
    deployments, beside = deploy(options, output, source, validation, expected, judge)
    grid = list(product(sorted(options.batch_sizes), sorted(options.lengths)))
    files = {each.dtype: each.load for each in deployments}
    speed = measure_latency(student.model, files, grid, options.seconds_per_point)
    teacher = answers_of_teacher(folder) if folder else None
    entries = describe_deployments(task, deployments, labels, expected, speed, threshold, teacher)
    written = [*(each.path for each in deployments), *beside]
    if folder and record:
        removed = [name for name in names_of(output) if not output.with_name(name).exists()]
        record = with_deployments(record, entries, removed)
        write_record(record, folder.record)
        written += [folder.record, rewrite_report(folder, record, task, texts)]
        return Exported(model_metrics(record, "student"), record.deployments, written)
    described = describe_model(student.model, metrics_over_splits(task, expected, labels, threshold))
    figures = to_json({"task": task.name, "models": {"student": described}, "deployments": entries})
    written.append(write_figures(output, options.format, plain(figures)))
    return Exported(described.metrics or {}, entries, written)


def names_of(output: Path) -> tuple[str, str]:
    """Return the names under which an export to ``output`` is known."""
    return output.name, f"{output.stem}.int8{output.suffix}"


def write_figures(output: Path, form: str, figures: dict[str, Any]) -> Path:
    """Write the figures of a student outside a run beside its file, or into its folder, and return where."""
    from distill.export.bert_folder import PROVENANCE
    from distill.utils.files import read_object, write_atomically

    path = output.with_suffix(".json")
    if form == "bert":
        path = output / PROVENANCE
        figures = read_object(path, "export again") | figures
    elif path.exists() and (earlier := read_object(path, "remove it")).get("models") == figures["models"]:
        # Exports of this student in another format stay, where their files do.
        replaced = set(names_of(output))
        others = (each for each in earlier["deployments"] if each["file"] not in replaced)
        kept = [each for each in others if output.with_name(each["file"]).exists()]
        figures["deployments"] = [*kept, *figures["deployments"]]
    write_atomically(path, json.dumps(figures, indent=1) + "\n")
    return path


def writable_output(options: argparse.Namespace) -> Path:
    """Refuse an output that could not be written, before minutes are spent on it."""
    from distill.export.bert_folder import check_bert_output
    from distill.export.formats import FORMATS, check_packages

    name, output = options.output, Path(options.output)
    if options.format == "bert":
        if options.int8:
            raise UserError("--int8 works only with --format onnx and openvino; a BERT folder holds fp32 weights")
        output = Path(os.path.abspath(name))
        check_bert_output(output)
    else:
        suffix = FORMATS[options.format].suffix
        if output.is_dir():
            example = output / f"student{suffix}"
            raise UserError(f"--output {name} is a folder; give the name of a file, such as {example}")
        if output.suffix != suffix:  # by which it is known, to OpenVINO and to whoever finds it
            raise UserError(f"--output {name}: give the name of a file that ends in {suffix}")
        for part in FORMATS[options.format].parts(output):
            if part.is_dir() or (part.exists() and not output.exists()):  # not left by an export
                raise UserError(f"--output {name}: {part} stands there already; remove it, or give another name")
        check_packages(options.format)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {name}: its folder cannot be created: {error.strerror}") from error
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"--output {name}: no write permission for {output.parent}")
    return output


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
