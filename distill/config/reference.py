"""What every key of a configuration does, read from the schema's docstrings: for ``--help`` and for the pages."""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distill.config.choices import CHOICES
from distill.config.schema import AUTO
from distill.tasks import task_names

REQUIRED = "required"
VALUES = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "true|false"}
"""How a type is written where a value goes."""
LONGEST_CHOICES = 60
"""Characters of choices that stand in place of a value; longer lists follow the text."""


@dataclass(frozen=True)
class Key:
    """One key of a configuration."""

    name: str
    """Dotted, as on the command line; ``stages[].name`` for a key of the items of a list."""
    values: str
    """What it takes: its choices, if they are short, or a type such as INTEGER."""
    default: str
    """As YAML writes it; `REQUIRED` if it has none."""
    choices: tuple[str, ...]
    """All values, or the names in a list or a mapping; empty if there is no fixed set."""
    text: str


@dataclass(frozen=True)
class Section:
    """The keys of one dataclass, without those of sections below it."""

    name: str
    """Dotted; empty for the top level."""
    text: str
    keys: tuple[Key, ...]


def read_sections(schema: type, name: str = "") -> list[Section]:
    """Return the sections of a dataclass, parents first, each in the order of its fields."""
    documented = field_docstrings(schema)
    keys, below = list[Key](), list[Section]()
    prefix = f"{name}." if name else ""
    for field in dataclasses.fields(schema):
        assert not isinstance(field.type, str)
        nested, item = field.type, _item_dataclass(field.type)
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            below += read_sections(nested, prefix + field.name)
            continue
        keys.append(_key(prefix + field.name, field, documented.get(field.name, "")))
        if item is not None:
            below += read_sections(item, f"{prefix}{field.name}[]")
    return [Section(name, " ".join((schema.__doc__ or "").split()), tuple(keys)), *below]


def field_docstrings(schema: type) -> dict[str, str]:
    """Return the string below every field of a dataclass, on one line each, by field."""
    body = ast.parse(inspect.getsource(schema)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def help_lines(sections: Sequence[Section], width: int) -> Iterator[str]:
    """Yield the lines of the help: every section with its keys, what they take, do and default to."""
    for section in sections:
        yield from ("", f"{section.name}: {section.text}" if section.name else section.text)
        for key in section.keys:
            default = REQUIRED if key.default == REQUIRED else f"default: {key.default}"
            option = key.name if "[]" in key.name else f"--{key.name}"
            yield f"  {option} {key.values}  ({default})"
            text = key.text
            if key.choices and key.choices[0] not in key.values:
                text += f" Choices: {', '.join(key.choices)}."
            wrap = textwrap.TextWrapper(width, break_on_hyphens=False, break_long_words=False)
            wrap.initial_indent = wrap.subsequent_indent = " " * 6
            yield from wrap.wrap(text)


def _key(name: str, field: dataclasses.Field[Any], text: str) -> Key:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    choices = tuple(task_names()) if name == "task" else CHOICES.get(name.replace("[]", ""), ())
    values, named = _values(field.type), "|".join(choices)
    if choices and len(named) <= LONGEST_CHOICES:
        values = values.replace(VALUES[str], named)
    return Key(name, values, _yaml(default), choices, text)


def _item_dataclass(annotation: Any) -> type | None:
    """Return the dataclass that a list or tuple holds, if it holds any."""
    items = [item for item in typing.get_args(annotation) if isinstance(item, type) and dataclasses.is_dataclass(item)]
    return items[0] if items and typing.get_origin(annotation) in (list, tuple) else None


def _values(annotation: Any) -> str:
    if isinstance(annotation, types.UnionType):
        return "|".join(_values(part) for part in typing.get_args(annotation) if part is not types.NoneType)
    if typing.get_origin(annotation) is dict:
        return "{NAME: VALUE, ...}"
    if _item_dataclass(annotation):
        return f"{AUTO}|[{{KEY: VALUE, ...}}, ...]"
    if typing.get_origin(annotation) is list:
        return f"[{_values(typing.get_args(annotation)[0])}, ...]"
    return VALUES[annotation]


def _yaml(value: Any) -> str:
    """Write a default as YAML does."""
    if value is dataclasses.MISSING:
        return REQUIRED
    if value == ():
        return AUTO
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    return (text or str(value)).replace("'", "")
