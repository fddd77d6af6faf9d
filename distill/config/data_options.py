"""The data settings as options of the commands that read no configuration file."""

import argparse
from typing import Any

from distill.config.choices import CHOICES
from distill.tasks import CUSTOM
from distill.utils.cli import positive
from distill.utils.errors import UserError

CUSTOM_ONLY = ("validation_fraction", "text_columns", "label_names", "regression", "main_metric", "multi_label")


def add_data_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add ``--data.dir`` and its like; what is not given is absent from the namespace: DataConfig has the defaults."""

    def add(name: str, **settings: Any) -> None:
        parser.add_argument(f"--data.{name}", default=argparse.SUPPRESS, **settings)

    # Written as in a configuration, --data.regression true, or without a value.
    switch: dict[str, Any] = {"type": true_or_false, "nargs": "?", "const": True, "metavar": "true|false"}
    add(
        "dir",
        metavar="PATH",
        help="folder of <task>/<split> files, embedded, or a file with task custom (default: the Hub)",
    )
    add("max_length", type=positive, metavar="TOKENS", help="longest text; longer ones are truncated (default 128)")
    add("seed", type=int, metavar="N", help="seed of the embedded data and of a validation split (default 0)")
    add(
        "validation_fraction",
        type=float,
        metavar="SHARE",
        help="task custom without a validation file (default 0.1)",
    )
    add("text_columns", nargs="+", metavar="NAME", help="task custom: one or two columns (default: found by name)")
    add(
        "label_column",
        nargs="+",
        metavar="NAME",
        help="task custom: column to predict (default: label, or found by name); of multi_label also 0/1 columns",
    )
    add("label_names", nargs="+", metavar="NAME", help="task custom: class names in label order (default: sorted)")
    add("regression", **switch, help="task custom: predict a number")
    add(
        "main_metric",
        choices=CHOICES["data.main_metric"],
        help="task custom: metric of the verdict (default: accuracy, pearson or micro_f1)",
    )
    add("multi_label", **switch, help="task custom: any number of labels for every text")
    add("drop_incomplete", **switch, help="leave out rows in which a text or the label is missing")


def true_or_false(text: str) -> bool:
    """Read a switch as YAML writes it."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def data_options(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """Return the data settings that were given, by their names in DataConfig.

    Raises:
        UserError: one that only task ``custom`` reads was given with another ``task``.
    """
    given = {name.removeprefix("data."): value for name, value in vars(options).items() if name.startswith("data.")}
    for name in ("text_columns", "label_names", "label_column"):
        if name in given:
            from distill.config.yaml_files import read_names  # the parser of files, which most calls do without

            given[name] = read_names(given[name])
    if len(given.get("label_column", [])) == 1:
        (given["label_column"],) = given["label_column"]
    if given.get("multi_label") and given.get("regression"):
        raise UserError("--data.multi_label and --data.regression: a regression has no labels; give one of the two")
    if isinstance(given.get("label_column"), list) and not given.get("multi_label"):
        raise UserError("--data.label_column names several columns; that is for --data.multi_label true alone")
    share = given.get("validation_fraction", 0.1)
    if not 0 < share < 0.5:
        raise UserError(f"--data.validation_fraction is {share}: give a share between 0 and 0.5")
    useless = [name for name in CUSTOM_ONLY if name in given]
    if useless and task != CUSTOM:
        raise UserError(f"--data.{useless[0]} works only with --task {CUSTOM}; {task} has its own columns and labels")
    return given
