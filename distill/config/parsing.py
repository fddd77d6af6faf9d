"""Read, check and write the configuration of a run: one YAML file, dotted overrides.

This is the one place that reads YAML.
"""

import argparse
import dataclasses
import itertools
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from distill.config.parser_messages import parser_message
from distill.config.reference import help_lines, read_sections
from distill.config.schema import AUTO, Config
from distill.config.validation import check_config
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

NAMES = ("label_names", "text_columns", "label_column")
"""Keys of names, which are taken as they are written: `no` and `1` are words there."""
CHECKED_YAML = "checked_yaml"
MAX_DEPTH = 20
MAX_VALUES = 10_000
SECTIONS = tuple(entry.name for entry in dataclasses.fields(Config) if dataclasses.is_dataclass(entry.type))


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


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration, readable by ``--config`` again."""
    write_atomically(path, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True))


def load_config(path: Path) -> Config:
    """Read a configuration written by :func:`save_config`."""
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
    jsonargparse.set_loader(CHECKED_YAML, _load_yaml, (yaml.YAMLError,))
    parser = ConfigParser(exit_on_error=False, allow_abbrev=False, parser_mode=CHECKED_YAML, description=description)
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
            if not isinstance(values, jsonargparse.Namespace):
                raise UserError(f"{section} is {values!r}: give it keys, or leave it out")
        values = parser.instantiate(namespace).as_dict()
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        # The parser does not say which file it could not read.
        files = ", ".join(value for option, value in itertools.pairwise(arguments) if option == "--config")
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"{files} is not UTF-8 text; save it as UTF-8") from error
        raise UserError(parser_message(str(error), files)) from error
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


def read_names(values: Sequence[str]) -> list[str]:
    """Return names that were given one after the other, or as one list in brackets."""
    if len(values) == 1 and values[0].lstrip().startswith("["):
        try:
            root: Any = yaml.compose(values[0], Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            return list(values)
        if _holds_scalars(root):
            return [item.value for item in root.value]
    return list(values)


def _holds_scalars(node: yaml.Node | None) -> bool:
    return isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value)


def _write_names(node: yaml.Node | None, loaded: Any) -> None:
    """Put what is written in the place of what YAML made of it, in all `NAMES` below a node."""
    if not isinstance(node, yaml.MappingNode) or not isinstance(loaded, dict):
        return
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value not in loaded:
            continue
        is_names = key.value.rpartition(".")[2] in NAMES
        if is_names and _holds_scalars(value):
            loaded[key.value] = [item.value for item in value.value]
        elif is_names and isinstance(value, yaml.ScalarNode) and loaded[key.value] is not None:
            # One column is a list, too: jsonargparse reads the single values of a sweep a second time.
            loaded[key.value] = [value.value] if key.value.endswith("text_columns") else value.value
        else:
            _write_names(value, loaded[key.value])


def _load_yaml(text: str) -> Any:
    """Load YAML as the parser would, unless it holds what no configuration needs and what is not safe to load.

    Raises:
        UserError: it is nested too deeply (libyaml crashes the process on it), its aliases stand for too many values,
            a key stands twice, in whatever spelling, or a class is named (the parser would import its module).
    """
    depth, too_deep = 0, f"nested more than {MAX_DEPTH} levels deep"
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            _refuse_yaml(depth > MAX_DEPTH, event, too_deep)
    except yaml.YAMLError as error:
        if "maximum nesting depth" in str(error):  # PyYAML 6.0.4 and newer count too, before the first event
            raise UserError(f"configuration: {too_deep}") from error
        raise
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    waiting = [] if root is None else [(root, 0)]
    for number, (node, depth) in enumerate(waiting):  # the list grows while it is read
        _refuse_yaml(number > MAX_VALUES or depth > MAX_DEPTH, root, f"aliases for more than {MAX_VALUES:,} values")
        if isinstance(node, yaml.MappingNode):
            _check_mapping(node)
            waiting += [(value, depth + 1) for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(item, depth + 1) for item in node.value]
    known: set[str] = set()
    for path, node in _paths(root):
        _refuse_yaml(path in known, node, f"key {path!r} stands twice, in two spellings; keep one")
        known.add(path)
    loaded = jsonargparse.get_loader("yaml")(text)
    _write_names(root, loaded)
    if isinstance(loaded, dict) and loaded.get("stages") == AUTO:
        loaded["stages"] = []
    return loaded


def _paths(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """Yield the values of a file with their dotted keys, which may be written with dots or as nested mappings."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield from _paths(value, f"{path}.{key.value}" if path else key.value)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _paths(item, f"{path}[{index}]")
    elif node is not None:
        yield path, node


def _check_mapping(node: yaml.MappingNode) -> None:
    names: list[str] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue  # the parser refuses it
        _refuse_yaml(key.value in names, key, f"key {key.value!r} stands twice; keep one")
        _refuse_yaml(key.value == "class_path", key, "'class_path' is not accepted; give the keys alone")
        for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if key.value in (*SECTIONS, "stages", "scratch") and isinstance(part, yaml.ScalarNode):
                by_name = re.fullmatch(r"\w+(\.\w+)+", part.value) and not part.value.endswith((".yaml", ".yml"))
                _refuse_yaml(by_name, key, f"{key.value} is {part.value!r}; give its keys")
        names.append(key.value)


def _refuse_yaml(condition: Any, where: Any, problem: str) -> None:
    if condition:
        raise UserError(f"configuration, line {where.start_mark.line + 1}: {problem}")


def differing_keys(one: Config, other: Config) -> list[str]:
    """Name the dotted keys in which two configurations differ."""

    def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in values.items():
            result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
        return result

    first, second = flat(dataclasses.asdict(one)), flat(dataclasses.asdict(other))
    return sorted(key for key in first | second if first.get(key) != second.get(key))
