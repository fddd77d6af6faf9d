"""Read, check and write the configuration of a run: YAML files, dotted overrides."""

import argparse
import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonargparse

from distill.config.given_files import file_problem, given_files
from distill.config.parser_messages import parser_message
from distill.config.reference import help_lines, read_sections
from distill.config.require import require
from distill.config.schema import AUTO, Config
from distill.config.validation import check_config
from distill.config.yaml_files import NAMES, SECTIONS, read_names, use_checked_yaml, write_yaml
from distill.utils.errors import UserError
from distill.utils.files import write_atomically

CHECK = "--check"
HELP_OPTIONS = {
    "--help": "show this help and exit",
    "--config FILE": "YAML file with keys; may be given several times, later ones win",
    "--print_config": "print the configuration as it is resolved, and exit",
}
CHECK_HELP = {CHECK: "look for everything that would go wrong here; train and write nothing"}
SECTIONS_HELP = (
    "In the file, keys stand under their section; on the command line, write --SECTION.KEY VALUE. A section may come "
    "from a file of its own, such as --student configs/students/abc_3_layers.yaml."
)
HELP_WIDTH = 100


class ConfigParser(jsonargparse.ArgumentParser):
    """A parser whose help is the reference of all keys."""

    schema: type | None = None
    """None in the parsers that jsonargparse makes for itself."""
    more_options: Mapping[str, str] = {}
    """Options that are no keys, and what they do, beside `HELP_OPTIONS`."""

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return one line of usage, the description, the options, and every key by section."""
        if self.schema is None:
            return super().format_help(formatter)
        width = min(shutil.get_terminal_size().columns, HELP_WIDTH)
        options, sections = {**HELP_OPTIONS, **self.more_options}, read_sections(self.schema)
        how = ["", *textwrap.wrap(SECTIONS_HELP, width)] if len(sections) > 1 else []
        return "\n".join(
            [
                f"usage: {self.prog} --config FILE [--KEY VALUE ...]",
                *("", (self.description or "").strip(), ""),
                *(f"  {option:15} {text}" for option, text in options.items()),
                *how,
                *help_lines(sections, width),
                "",
            ]
        )


def parse_config(
    arguments: Sequence[str] | None = None,
    attentions: Mapping[str, Any] | None = None,
    *,
    description: str | None = None,
) -> Config:
    """Read ``--config FILE`` (several are merged, later ones win) and dotted overrides into a checked Config.

    Args:
        arguments: of the command line; None: those of this process.
        attentions: what a student may have (``students.STUDENTS``); None skips the checks that need them.
        description: of the command, for its help.

    Raises:
        UserError: a key that does not exist, a value of the wrong type or an impossible combination.
    """
    return _checked(_parse(arguments, description), attentions)


def _checked(config: Config, attentions: Mapping[str, Any] | None) -> Config:
    """Return the configuration with its run folder, if nothing speaks against it."""
    check_config(config, attentions)
    return dataclasses.replace(config, run_dir=config.run_dir or f"runs/{config.task}")


def parse_command(arguments: Sequence[str] | None = None, description: str | None = None) -> tuple[Config, bool]:
    """Read a command line: its configuration, and whether ``--check`` asks for a look at it alone.

    ``--check`` is taken out before the rest is parsed: it is no key, neither of a file nor of a run.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    others = [argument for argument in arguments if argument != CHECK]
    return _checked(_parse(others, description, CHECK_HELP), None), len(others) < len(arguments)


def config_text(config: Config) -> str:
    """Return the resolved configuration as YAML, readable by ``--config`` again."""
    return write_yaml(dataclasses.asdict(config))


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration."""
    write_atomically(path, config_text(config))


def load_config(path: Path) -> Config:
    """Read a configuration written by :func:`save_config`."""
    state = path.stat()
    return _load(path, state.st_ino, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)
def _load(path: Path, *state: int) -> Config:
    """Read a file in this ``state``: a run that is resumed asks for it five times, a sixth of a second each."""
    return _parse(["--config", str(path)])


def make_parser(
    schema: type, description: str | None, more_options: Mapping[str, str] | None = None
) -> jsonargparse.ArgumentParser:
    """Return a parser of YAML files and dotted overrides into a dataclass; files are looked at before they are loaded.

    Args:
        schema: the dataclass.
        description: of the help.
        more_options: options in the help that the parser itself does not read, and what they do.
    """
    mode = use_checked_yaml()
    parser = ConfigParser(exit_on_error=False, allow_abbrev=False, parser_mode=mode, description=description)
    parser.schema, parser.more_options = schema, more_options or {}
    parser.add_argument("--config", action="config", help="YAML file; may be given several times, later ones win")
    parser.add_class_arguments(schema)
    return parser


def _parse(
    arguments: Sequence[str] | None, description: str | None = None, more_options: Mapping[str, str] | None = None
) -> Config:
    arguments = _open_stages(names_as_written(sys.argv[1:] if arguments is None else arguments))
    parser = make_parser(Config, description, more_options)
    try:
        namespace = parser.parse_args(arguments)
        namespace.pop("config", None)
        for section in (*SECTIONS, "teacher.scratch"):
            values = namespace.get(section, jsonargparse.Namespace())
            has_keys = isinstance(values, jsonargparse.Namespace)
            require(has_keys, section, values, "give it keys, or leave it out")
        values = parser.instantiate(namespace).as_dict()
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        # The parser does not say which file it could not read.
        files = ", ".join(value for _, value in given_files(arguments, ["config"]))
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"{files} is not UTF-8 text; save it as UTF-8") from error
        raise UserError(file_problem(arguments, Config) or parser_message(str(error), files)) from error
    return Config(**{name.name: values[name.name] for name in dataclasses.fields(Config)})


def _open_stages(arguments: Sequence[str]) -> list[str]:
    """Let ``--stages auto`` stand for an empty list, as it does in a file: no stages yet."""
    opened = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        is_auto = argument == f"--stages={AUTO}" or (before == "--stages" and argument == AUTO)
        opened.append(argument.replace(AUTO, "[]") if is_auto else argument)
    return opened


def names_as_written(arguments: Sequence[str]) -> list[str]:
    """Let the lists of `NAMES` on a command line be texts, written in brackets or one after the other."""
    opened: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        option, equals, value = argument.partition("=")
        opened.append(argument)
        if not option.startswith("--") or option.rpartition(".")[2] not in NAMES:
            continue
        values = [value] if equals else []
        while not equals and waiting and not waiting[0].startswith("--"):
            values.append(waiting.pop(0))
        if option.endswith("label_column") and len(values) == 1 and not values[0].lstrip().startswith("["):
            opened += [] if equals else values  # one column stays a text
        elif values and values != ["null"]:
            opened[-1:] = [f"{option}={json.dumps(read_names(values), ensure_ascii=False)}"]
        elif values:
            opened += [] if equals else values
    return opened


def differing_keys(one: Config, other: Config) -> list[str]:
    """Name the dotted keys in which two configurations differ."""

    def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in values.items():
            result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
        return result

    first, second = flat(dataclasses.asdict(one)), flat(dataclasses.asdict(other))
    return sorted(key for key in first | second if first.get(key) != second.get(key))
