"""What the parser says, in one line that names the key and, for an unknown one, the nearest match."""

import ast
import dataclasses
import os
import re
import types
import typing
from typing import Any

from distill.config.given_files import missing_file
from distill.config.require import as_written
from distill.config.schema import Config, StageConfig
from distill.utils.errors import choices_hint

UNKNOWN = re.compile(r"Option '([^']+)' is not accepted|does not accept option '([^']+)'|arguments: --([\w.-]+)")
WORDS = {int: "an integer", float: "a number", bool: "true, false", str: "text", types.NoneType: "null"}
"""What a value of a type is called in a sentence."""
NULLS = ("null", "Null", "NULL", "~")
MANY = {int: "integers", float: "numbers", str: "texts"}


def parser_message(message: str, files: str, schema: type = Config) -> str:
    """Turn a parser message into one line that names the key and, for an unknown one, the nearest match.

    Args:
        message: of the parser.
        files: that were given, which it does not name.
        schema: the dataclass that the parser reads.
    """
    message = message.replace("Problems parsing config", f"cannot read {files}")
    unknown = UNKNOWN.search(message)
    group = re.search(r"Group '([\w.]+)' does not accept", message)
    in_stages = 'key "stages"' in message
    if unknown:
        name = next(part for part in unknown.groups() if part)
        in_stage = f"stages.{name.partition('.')[0]}"  # the parser flattens what an unknown key holds
        key = f"{group.group(1)}.{name}" if group else in_stage if in_stages else name
        return f"unknown key {key!r}: {_keys_hint(key, schema)}"
    if "Unexpected config" in message:
        return f"{files} holds no keys; see configs/ for examples"
    missing = re.search(r"arguments are required: ([\w.]+)", message)  # of several the first
    if missing and in_stages:
        return f"missing key stages.{missing.group(1)}: give it to every stage"
    if missing:
        return f"missing key {missing.group(1)}: give it in the --config file or as --{missing.group(1)} VALUE"
    if valueless := re.search(r"argument (--[\w.]+): expected one argument", message):
        return f"{valueless.group(1)} has no value; give one behind it"
    if no_file := re.search(r'Parser key "([\w.]+)": Unable to load config "([^"]*)"', message):
        section, name = no_file.groups()
        if name in NULLS:
            return f"{section} is null: give it keys, or leave it out"
        holds_none = f"--{section} {name} holds no keys of section {section}; give a YAML file that does"
        return holds_none if os.path.isfile(name) else missing_file(section, name)
    if stray := re.search(r"unrecognized arguments: (\S+)", message):
        return f"{stray.group(1)!r} is no option; give keys as --KEY VALUE"
    return _wrong_type(message, schema) or _as_it_is(message)


def _as_it_is(message: str) -> str:
    """Return what the parser says in one line, without the names of our classes."""
    message = re.sub(r"Problem with given class_path '[\w.]+':", "", message)
    message = re.sub(r"Parser key \"([\w.]+)\":", r"\1:", message)
    message = re.sub(r"(?:[\w.]+:\s*)?Unable to load config '(.*)'\s+-", r"cannot read \1:", message)
    message = message.replace("<class 'tuple'>", "list")  # YAML knows no tuples
    return "configuration: " + re.sub(r"<class .(\w+).>", r"\1", " ".join(message.split()))


def _wrong_type(message: str, schema: type) -> str | None:
    """Say which key has which value and what it may have; None where the message is not about a type."""
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    # Of several kinds that a value may have, each tells its own before the whole is told.
    found = re.search(r"Given value: (.*)", message, re.DOTALL) or re.search(r"Got value: (.*)", message, re.DOTALL)
    if not keys or not found:
        return None
    key = f"stages.{keys[-1]}" if keys[0] == "stages" != keys[-1] else keys[-1]
    kind = _all_keys(schema).get(key)
    if kind is None:
        return None
    is_text = "value type: <class 'str'>" in message
    outer = typing.get_origin(kind)
    of_an_item = outer in (list, tuple, dict) and f"<class '{outer.__name__}'>" not in message
    value = _value(found.group(1), is_text=is_text, wanted=kind)
    return f"{key} {'holds' if of_an_item else 'is'} {value}: expected {in_words(kind)}"


def _value(text: str, *, is_text: bool, wanted: Any) -> str:
    """Return a value as a configuration has it, of which the parser shows no quotation marks."""
    text = " ".join(text.split())
    try:
        value = text if is_text else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    return as_written(text if type(value) is wanted else value)  # the text '5' is no integer


def in_words(kind: Any) -> str:
    """Say what a key of this type may have."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        words = ", ".join(WORDS.get(part) or in_words(part) for part in parts).split(", ")
    elif origin is list:
        words = [f"a list of {MANY.get(parts[0], 'values')}"]
    elif origin is tuple:
        words = ["a list"]
    elif origin is dict:
        words = [f"names with {MANY.get(parts[1], 'values')} ({{NAME: {'1' if parts[1] is float else 'VALUE'}}})"]
    else:
        words = WORDS.get(kind, "keys").split(", ")
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _keys_hint(key: str, schema: type) -> str:
    """Name the keys of the section that ``key`` was looked for in, and the nearest match of all."""
    keys, key = list(_all_keys(schema)), key.replace("-", "_")  # as other command lines write it
    section = key.rpartition(".")[0]
    siblings = [name for name in keys if name.rpartition(".")[0] == section] or [n for n in keys if "." not in n]
    hint = choices_hint(key, keys)
    nearest = hint[hint.index(";") :] if ";" in hint else ""
    return f"choose one of {', '.join(siblings)}{nearest}"


def _all_keys(section: type, prefix: str = "") -> dict[str, Any]:
    """Return the dotted keys of a section with their types."""
    keys: dict[str, Any] = {}
    for entry in dataclasses.fields(section):
        keys[prefix + entry.name] = entry.type
        if entry.name == "stages":
            keys |= _all_keys(StageConfig, "stages.")
        elif dataclasses.is_dataclass(entry.type) and isinstance(entry.type, type):
            keys |= _all_keys(entry.type, f"{prefix}{entry.name}.")
    return keys
