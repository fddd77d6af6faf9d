"""Compare two sequence classifiers: what the student kept of its teacher, and how much faster it is.

    python pipelines/compare.py --teacher runs/sst2/teacher --student runs/sst2/student --task sst2
    python pipelines/compare.py --teacher DIR --student DIR --task sst2 --data.dir DATA --output report
    python pipelines/compare.py --teacher DIR --student DIR --task sst2 --require retention=0.95,speedup=2.0
    python pipelines/compare.py --teacher DIR --student DIR --baseline DIR --task sst2 --require gain=0
    python pipelines/compare.py --teacher DIR --student DIR --task sst2 --submission glue-server

Exit code 0; 1 when --require is not met by the lower ends of the 95 % intervals; 2 for a mistake in the command.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is distill.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.config.choices import CHOICES
from distill.config.data_options import add_data_options, data_options
from distill.reporting.verdict import parse_requirements, unmet_requirements
from distill.tasks import Task, task_names
from distill.utils.cli import Parser, positive, run, writable_folder
from distill.utils.errors import UserError
from distill.utils.record_json import to_json

if TYPE_CHECKING:
    from distill.benchmark.conditions import Models
    from distill.config.data_schema import DataConfig
    from distill.config.schema import ComparisonConfig
    from distill.data.batching import TokenizedExamples
    from distill.data.splits import Examples
    from distill.evaluation.comparison import ComparisonSetup
    from distill.evaluation.record import Record


def make_parser(description: str | None) -> Parser:
    """Return a parser of what is compared, on which data, and how its speed is measured."""
    start, _, codes = (description or "").partition("\n\nExit")
    parser = Parser(
        description=start,
        epilog=f"Exit{codes}" if codes else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("models").add_argument
    add("--teacher", required=True, metavar="DIR", help="fine-tuned classifier, as save_pretrained leaves it")
    add("--student", required=True, metavar="DIR", help="classifier to compare with it")
    add("--trust-remote-code", action="store_true", help="run the code that a checkpoint brings along")
    data = parser.add_argument_group("data")
    data.add_argument("--task", required=True, metavar="TASK", help=f"one of {', '.join(task_names())}")
    add_data_options(data)
    add = parser.add_argument_group("speed").add_argument
    lengths, default = [16, 32, 128, 512, 1024, 2048, 4096], "(default %(default)s)"
    add("--lengths", type=positive, nargs="+", default=lengths, metavar="TOKENS", help=f"lengths to time {default}")
    add("--batch-sizes", type=positive, nargs="+", default=[1, 8, 32], metavar="N", help=f"batch sizes {default}")
    add("--device", choices=("cpu", "cuda"), default="cpu", help=f"device of both models {default}")
    dtypes, each = CHOICES["comparison.dtype"], "time for each batch size and length"
    add("--dtype", choices=dtypes, default="float32", help=f"precision of the speed measurement {default}")
    add("--seconds-per-point", type=float, default=2.0, metavar="SECONDS", help=f"{each} {default}")
    add("--max-seconds", type=float, default=180.0, metavar="SECONDS", help=f"time for all of them {default}")
    add("--compile", action="store_true", help="time both models through torch.compile")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument_group("output").add_argument
    add("--baseline", metavar="DIR", help="compare also with the student's architecture trained on labels alone")
    add("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap behind the intervals (default 0)")
    add("--format", choices=("table", "md", "json"), default="table", help="form of what is printed (default table)")
    add("--output", metavar="DIR", help="write record.json, report.html, report.md and plots there")
    add("--submission", metavar="DIR", help="write both models' answers on GLUE's test split there, for its server")
    add(
        "--require",
        type=parse_requirements,
        default={},
        metavar="retention=R,speedup=S,gain=G",
        help="exit with 1 unless the lower ends of the intervals reach these",
    )
    options = parser.parse_args(arguments)
    data_options(options, options.task)  # refuses at once what does not fit the task
    if "gain" in options.require and options.baseline is None:
        raise UserError("--require gain: it is measured over the same student on labels alone; give --baseline DIR")
    return options


def main() -> int:
    """Compare, print, write, and hold the record against what is required."""
    options = parse()
    record = compare(options)
    print(render(record, options.format), end="")
    failures = unmet_requirements(record, options.require)
    for failure in failures:
        print(f"not met: {failure}", file=sys.stderr)
    return 1 if failures else 0


def comparison_settings(options: argparse.Namespace) -> "ComparisonConfig":
    """Return what is measured, and how long it may take; UserError where that cannot be measured."""
    from distill.config.schema import ComparisonConfig
    from distill.config.validation import check_comparison

    settings = ComparisonConfig(
        batch_sizes=options.batch_sizes,
        lengths=options.lengths,
        dtype=options.dtype,
        seconds_per_point=options.seconds_per_point,
        max_seconds=options.max_seconds,
    )
    check_comparison(settings)
    return settings


@dataclass(frozen=True)
class OpenedComparison:
    """What the command line names, loaded."""

    setup: "ComparisonSetup"
    models: "Models"
    texts: Mapping[str, "Examples"]
    """The validation splits before they were tokenised."""
    tokenize: "Callable[[str, Examples], TokenizedExamples]"
    """As the model of a role reads them."""


def check_options(options: argparse.Namespace) -> tuple[Task, "DataConfig", "ComparisonConfig"]:
    """Return the task, where its data is and what is measured; UserError where one of them cannot be."""
    # Here and not above: --help and a mistyped option need not wait for torch.
    from distill.config.schema import DataConfig
    from distill.data.columns import print_found_columns
    from distill.data.splits import resolve_task
    from distill.models.loading import check_device

    data = DataConfig(**data_options(options, options.task))
    task = resolve_task(options.task, data)
    print_found_columns(task, data)
    settings = comparison_settings(options)
    check_device(options.device)
    return task, data, settings


def open_comparison(
    options: argparse.Namespace, task: Task, data: "DataConfig", settings: "ComparisonConfig"
) -> OpenedComparison:
    """Load the models and the validation data, and refuse what cannot be compared."""
    import students  # noqa: F401  (registers our students, so that loading them runs no code from their folders)
    from distill.benchmark.conditions import Models
    from distill.data.inspection import print_doubts
    from distill.data.splits import load_data
    from distill.data.tokenization import tokenize
    from distill.evaluation.comparison import ComparisonSetup, check_comparable
    from distill.evaluation.predict import settle_threshold
    from distill.models.controls import full_width_control, softmax_control
    from distill.models.inputs import reading_of
    from distill.models.loading import TEACHER, check_max_length, load_comparable, same_tokenizer

    roles = {role: getattr(options, role, None) for role in ("teacher", "student", "baseline")}
    loaded = load_comparable(roles, task, trust_remote_code=options.trust_remote_code)
    models = {role: classifier.model for role, classifier in loaded.items()}
    teacher, student = loaded[TEACHER], loaded["student"]
    alike = same_tokenizer(teacher.tokenizer, student.tokenizer)
    check_comparable(task, models, one_vocabulary=alike)
    check_max_length(loaded, data.max_length, pairs=len(task.text_columns) > 1)
    splits = load_data(task, data)
    texts = splits.validation

    def read(role: str, part: "Examples") -> "TokenizedExamples":
        reader = teacher if role == TEACHER else student
        return tokenize(part, reader.tokenizer, data.max_length, **reading_of(reader.model, reader.tokenizer))

    validation = {name: read("student", part) for name, part in texts.items()}
    for_teacher = None if alike else {name: read(TEACHER, part) for name, part in texts.items()}
    print_doubts(task, data, splits, for_teacher or validation, teacher.tokenizer)
    if task.multi_label:
        held_out = {role: read(role, splits.held_out) for role in ("student", TEACHER)}
        for role, model in models.items():
            own = held_out[TEACHER if role == TEACHER else "student"]
            settle_threshold(task, model.to(options.device), own, options.device)
    seed = getattr(options, "seed", 0)
    setup = ComparisonSetup(task, validation, settings, options.device, seed, options.compile, for_teacher)
    control = softmax_control(models["student"])
    wide = full_width_control(models["student"], models["teacher"])
    opened = Models(models["teacher"], models["student"], models.get("baseline"), control, wide)
    return OpenedComparison(setup, opened, texts, read)


def compare(options: argparse.Namespace) -> "Record":
    """Compare what the command line names, and write what ``--output`` and ``--submission`` ask for."""
    from distill.benchmark.model_copies import saved_copies
    from distill.evaluation.comparison import compare_models
    from distill.evaluation.disagreements import find_disagreements
    from distill.evaluation.glue_submission import load_test_texts, write_submission
    from distill.evaluation.predictions_file import write_predictions
    from distill.evaluation.record import write_record
    from distill.export.alternatives import measure_alternatives
    from distill.reporting.answers import Answers
    from distill.reporting.report import write_report

    task, data, settings = check_options(options)
    tests = load_test_texts(task, data.dir) if options.submission else {}
    output = writable_folder(options.output) if options.output else None
    submission = writable_folder(options.submission, "--submission") if options.submission else None
    opened = open_comparison(options, task, data, settings)
    setup, models = opened.setup, opened.models
    with saved_copies({"teacher": models.teacher, "student": models.student}) as folders:
        models = replace(models, folders=folders)
        record, predicted = compare_models(setup, models, measure_alternatives, source=data.dir)
    if submission:
        for role, model in models.compared.items():
            answered = {name: opened.tokenize(role, part) for name, part in tests.items()}
            write_submission(task, {role: model}, answered, submission, device=options.device)
    if output:
        disagreements = find_disagreements(task, predicted, opened.texts)
        write_report(record, output, disagreements, answers=Answers(task, predicted))
        write_predictions(predicted, output / "predictions.parquet")
        write_record(record, output / "record.json")
    return record


def render(record: "Record", form: str) -> str:
    """Return the record as a terminal table, markdown or JSON."""
    from distill.reporting.record_tables import comparison_table, markdown_table

    if form == "json":
        return json.dumps(to_json(record), indent=1) + "\n"
    return (markdown_table if form == "md" else comparison_table)(record)


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
