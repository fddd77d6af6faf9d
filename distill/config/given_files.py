"""The files that a command line names: which are missing, and which are given in the wrong place."""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from distill.config.schema import Config
from distill.config.yaml_files import SECTIONS, load_value, top_keys
from distill.utils.errors import UserError, nearest

ROOT = Path(__file__).resolve().parents[2]
SWEEP_KEYS = ("dir", "configs", "students")
"""What every sweep has; the last two of them nothing else has."""
NEAR = 0.6


def given_files(arguments: Sequence[str], options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a command line, without their dashes, that have a value, and the value."""
    for argument, following in zip_longest(arguments, arguments[1:]):
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--")
        if option.startswith("--") and name in options and (equals or following is not None):
            yield name, value if equals else str(following)


def file_problem(arguments: Sequence[str], schema: type) -> str | None:
    """Return in one line what is wrong with a file that a command line names; None where none is missing or misplaced.

    Args:
        arguments: of the command line.
        schema: the dataclass that it is parsed into: `Config`, or that of a sweep.
    """
    sections = _sections() if schema is Config else {}
    wanted = {"config": _names(schema), **sections}
    for option, value in given_files(arguments, list(wanted)):
        if option != "config" and not _names_a_file(value):
            continue
        if not os.path.isfile(value):
            return missing_file(option, value, of_sweep=schema is not Config)
        keys = top_keys(Path(value))
        kind = None if keys & wanted[option] else _kind_of(keys)
        if kind is not None:
            what, way_out = kind
            if schema is not Config:
                return f"{value} {what}; a sweep has {', '.join(SWEEP_KEYS)} (configs/sweeps/)"
            return f"{value} {what}: give it {way_out}"
    return None


def missing_file(option: str, name: str, *, of_sweep: bool = False) -> str:
    """Say that there is no such file, and which is meant, or which there are.

    Args:
        option: without its dashes: config, or a section.
        name: as it was given.
        of_sweep: whether the configuration is a sweep's.
    """
    given, problem = name or "''", "is a folder" if os.path.isdir(name) else "does not exist"
    shipped = _shipped("configs/sweeps" if of_sweep else "configs" if option == "config" else f"configs/{option}s")
    names = {path.stem: path for path in reversed([*_yaml_files(Path(name).parent), *shipped])}
    near = nearest(Path(name).stem, names, NEAR)
    if near is not None:
        return f"--{option} {given} {problem}; did you mean {names[near]}?"
    choices = f"choose one of {', '.join(map(str, shipped))}, or give another" if shipped else "give a"
    return f"--{option} {given} {problem}; {choices} YAML file"


def _kind_of(keys: set[str]) -> tuple[str, str] | None:
    """Return what a file with these keys is, and how it is given; None where they are of nothing that we know."""
    if keys & _names(Config):
        return "configures one run", "with --config"
    if keys & set(SWEEP_KEYS[1:]):
        return "describes a sweep", "to pipelines/sweep.py"
    fitting = [section for section, names in _sections().items() if keys and keys <= names]
    if not fitting:
        return None
    whose = "a student" if fitting[0] == "student" else f"section {' or '.join(fitting)}"
    return f"is a preset of {whose}", f"with --{' or --'.join(fitting)}"


def _sections() -> dict[str, set[str]]:
    """Return the sections of a run's configuration with the names of their keys."""
    types: dict[str, Any] = {entry.name: entry.type for entry in dataclasses.fields(Config)}
    scratch = {entry.name: entry.type for entry in dataclasses.fields(types["teacher"])}["scratch"]
    return {**{section: _names(types[section]) for section in SECTIONS}, "teacher.scratch": _names(scratch)}


def _names(schema: Any) -> set[str]:
    return {entry.name for entry in dataclasses.fields(schema)}


def _names_a_file(value: str) -> bool:
    """Tell the name of a file from keys that are written on the command line itself, and from null."""
    try:
        return os.path.isfile(value) or isinstance(load_value(value, "value"), str)
    except UserError:
        return False


def _shipped(folder: str) -> list[Path]:
    """Return the files of a folder of ours, as they are called from here."""
    files = _yaml_files(ROOT / folder)
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in files]


def _yaml_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if re.fullmatch(r"\.ya?ml", path.suffix))
    except OSError:
        return []
