"""How the commands that train begin: read the command line, open and check the run; with ``--check`` no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.check_config import check_config
from distill.read_config import parse_command

if TYPE_CHECKING:
    from pipelines.opening import Lesson, Work


def open_command() -> tuple[tuple[Work, Lesson] | None, int]:
    """Return the run of the command line, None where nothing is left to do, and the exit code for that case.

    Raises:
        UserError: something is wrong that can be known without training.
    """
    config, only_check = parse_command()
    # Here and not above: `--help` and a misspelt key should not wait for torch.
    from distill.findings import settle
    from pipelines.preflight import check_run, open_checked
    from students import STUDENTS

    check_config(config, STUDENTS)
    if only_check:
        return None, check_run(config)
    return open_checked(config, settle), 0
