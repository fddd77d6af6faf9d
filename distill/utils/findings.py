"""What a check found, and what becomes of it: printed in full, or an end to the run."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from distill.utils.errors import UserError

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """What one check found: a level, and a line that names the thing and, where something is wrong, the way out."""

    level: str
    line: str

    def __str__(self) -> str:
        return f"{self.level:7} {self.line}"


class NotReadyError(Exception):
    """A check that prints everything has printed an error."""


def raise_on_error(findings: Iterable[Finding]) -> None:
    """Print warnings and go on; the first error ends the run, and is told alone.

    Raises:
        UserError: with the line of the first error.
    """
    warnings = []
    for finding in findings:
        if finding.level == ERROR:
            raise UserError(finding.line)
        if finding.level == WARNING and is_rank_zero():
            warnings.append(f"warning: {finding.line}")
    for line in warnings:
        print(line, file=sys.stderr, flush=True)


def print_findings(findings: Iterable[Finding]) -> None:
    """Print every finding.

    Raises:
        NotReadyError: an error was among them.
    """
    failed = False
    for finding in findings:
        if is_rank_zero():
            print(finding, flush=True)
        failed = failed or finding.level == ERROR
    if failed:
        raise NotReadyError


def is_rank_zero() -> bool:
    """Tell whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"
