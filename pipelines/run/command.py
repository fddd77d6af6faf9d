"""How the commands that train begin: read the command line, open and check the run; with ``--check`` no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.config.parsing import parse_command
from distill.config.validation import check_config
from distill.utils.cli import quick_imports
from distill.utils.errors import UserError

if TYPE_CHECKING:
    from pipelines.run.context import DistillationSetup, RunContext


def prepare_command(
    description: str | None, *, teacher_alone: bool = False
) -> tuple[tuple[RunContext, DistillationSetup] | None, int]:
    """Return the run of the command line, None where nothing is left to do, and the exit code for that case.

    Args:
        description: stands in the help.
        teacher_alone: whether the command ends with the teacher.

    Raises:
        UserError: something is wrong that can be known without training.
    """
    config, only_check = parse_command(description=description)
    with quick_imports():  # here and not above: `--help` and a misspelt key should not wait for torch
        from distill.utils.findings import raise_on_error
        from pipelines.run.preflight import check_run, prepare_run
        from students import STUDENTS

    check_config(config, STUDENTS)
    if teacher_alone and config.teacher.epochs == 0:
        raise UserError("teacher.epochs is 0: that is no teacher; give more than 0, or null to have it chosen")
    if only_check:
        return None, check_run(config, teacher_alone=teacher_alone)
    return prepare_run(config, raise_on_error, teacher_alone=teacher_alone), 0
