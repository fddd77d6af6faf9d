"""YAML of configurations and sweeps: read, checked before it is loaded, and written.

This is the one place that reads YAML.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from distill.config.schema import AUTO, Config
from distill.utils.errors import UserError

NAMES = ("label_names", "text_columns", "label_column")
"""Keys of names, which are taken as they are written: `no` and `1` are words there."""
CHECKED_YAML = "checked_yaml"
NULL = "tag:yaml.org,2002:null"
MAX_DEPTH = 20
MAX_VALUES = 10_000
SECTIONS = tuple(entry.name for entry in dataclasses.fields(Config) if dataclasses.is_dataclass(entry.type))


def use_checked_yaml() -> str:
    """Let jsonargparse load files by :func:`load_yaml`, and return the name of that mode."""
    jsonargparse.set_loader(CHECKED_YAML, load_yaml, (yaml.YAMLError,))
    return CHECKED_YAML


def write_yaml(values: dict[str, Any]) -> str:
    """Return values as YAML, in their order."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def text_at(path: Path, key: str) -> str | None:
    """Return the text that stands at a dotted key of a file; None for null, and where the file has no such text.

    A file that cannot be loaded has none: what is wrong with it the parser says, to whoever starts a run with it.
    """
    try:
        found = dict(_paths(_compose(path.read_text(encoding="utf-8")))).get(key)
    except (yaml.YAMLError, UnicodeDecodeError, UserError):
        return None
    return found.value if isinstance(found, yaml.ScalarNode) and found.tag != NULL else None


def top_keys(path: Path) -> set[str]:
    """Return the keys of a file that stand in no section; none of one that cannot be loaded."""
    try:
        return {re.split(r"[.\[]", key)[0] for key, _ in _paths(_compose(path.read_text(encoding="utf-8")))}
    except (OSError, yaml.YAMLError, UnicodeDecodeError, UserError):
        return set()


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


def load_yaml(text: str) -> Any:
    """Load YAML as the parser would, unless :func:`_compose` refuses it."""
    root = _compose(text)
    loaded = jsonargparse.get_loader("yaml")(text)
    _write_names(root, loaded)
    if isinstance(loaded, dict) and loaded.get("stages") == AUTO:
        loaded["stages"] = []
    return loaded


def load_value(text: str, option: str) -> Any:
    """Load one value that a command line gives to ``option``; UserError where it is no YAML."""
    try:
        return load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{option}: {text!r} cannot be read: {getattr(error, 'problem', error)}") from error


def _compose(text: str) -> yaml.Node | None:
    """Return what is written, unless it holds what no configuration needs and what is not safe to load.

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
    return root


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
