"""Frozen dataclasses as the objects of a JSON record: checked by their types when read, written as they were read."""

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from distill.utils.errors import UserError

TYPE_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    NoneType: "null",
}
ADDED_LATER = {"added later": True}
"""Metadata of a field that is always written, though files of earlier versions lack it."""


@dataclasses.dataclass(frozen=True)
class JsonObject:
    """Base of every object of a record; its fields are the keys, in the order in which they are written.

    A field without default must be in the file, even if it is null. One with a default may be lacking there, and is
    not written where it has that default, unless it is marked `ADDED_LATER`. Keys that are no fields are passed over.
    """

    lacking: frozenset[str] = dataclasses.field(default=frozenset(), kw_only=True, repr=False, compare=False)
    """Fields that the file did not have, so that a file of an earlier version is written again as it was."""


Object = TypeVar("Object", bound=JsonObject)


def unmeasured(kind: type[Object], **given: Any) -> Object:
    """Return an object in which every required field that is not ``given`` is null."""
    required = (key.name for key in _keys(kind) if key.default is dataclasses.MISSING)
    return kind(**{**dict.fromkeys(required), **given})


def to_json(value: Any) -> Any:
    """Return objects, mappings and sequences, however nested, as JSON's dicts and lists."""
    if isinstance(value, JsonObject):
        return {key.name: to_json(getattr(value, key.name)) for key in _keys(type(value)) if _is_written(value, key)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def _is_written(value: JsonObject, key: "dataclasses.Field[Any]") -> bool:
    if key.default is dataclasses.MISSING or getattr(value, key.name) != key.default:
        return True
    return "added later" in key.metadata and key.name not in value.lacking


def _keys(kind: type[JsonObject]) -> tuple["dataclasses.Field[Any]", ...]:
    return tuple(key for key in dataclasses.fields(kind) if key.name != "lacking")


def from_json(kind: type[Object], value: Any, where: str, path: str = "") -> Object:
    """Return what JSON says as an object of ``kind``.

    Args:
        kind: the dataclass, whose types are the schema: text, numbers, objects, tuples and mappings of them, or null.
        value: what was read.
        where: named in the message, such as the file's name.
        path: of ``value`` in the file, with dots.

    Raises:
        UserError: naming the first key that is missing or has the wrong type.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: {path or 'the file'} is {_kind(value)}, not an object")
    given, lacking, types = {}, set(), get_type_hints(kind)
    for key in _keys(kind):
        name = f"{path}.{key.name}" if path else key.name
        if key.name in value:
            given[key.name] = read_value(types[key.name], value[key.name], where, name)
        elif key.default is dataclasses.MISSING:
            raise UserError(f"{where}: {name} is missing; write the file again")
        else:
            lacking.add(key.name)
    return kind(**given, lacking=frozenset(lacking))


def read_value(hint: Any, value: Any, where: str, path: str) -> Any:
    """Return ``value`` as that one of the hint's types whose JSON it is; UserError where it is none of them.

    Arguments as in :func:`from_json`, with a type for ``kind``.
    """
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for kind in kinds:
        if kind is Any or type(value) in _json_types(kind):  # not isinstance: to Python true is a whole number
            return _convert(kind, value, where, path)
    expected = " or ".join(TYPE_NAMES[each] for kind in kinds for each in _json_types(kind))
    raise UserError(f"{where}: {path} is {_kind(value)}, not {expected}")


def _convert(kind: Any, value: Any, where: str, path: str) -> Any:
    if get_origin(kind) in (tuple, list):
        items = (read_value(get_args(kind)[0], item, where, f"{path}[{index}]") for index, item in enumerate(value))
        return tuple(items) if get_origin(kind) is tuple else list(items)
    if get_origin(kind) in (Mapping, dict):
        return {key: read_value(get_args(kind)[1], item, where, f"{path}.{key}") for key, item in value.items()}
    return from_json(kind, value, where, path) if _is_object(kind) else value


def _json_types(kind: Any) -> tuple[type, ...]:
    if get_origin(kind) in (tuple, list):
        return (list,)
    if get_origin(kind) in (Mapping, dict) or _is_object(kind):
        return (dict,)
    return (int, float) if kind is float else (kind,)


def _is_object(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, JsonObject)


def _kind(value: Any) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)
