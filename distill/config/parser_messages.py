"""What the parser says, in one line that names the key and, for an unknown one, the nearest match."""

import dataclasses
import re

from distill.config.schema import Config, StageConfig
from distill.utils.errors import choices_hint


def parser_message(message: str, files: str) -> str:
    """Turn a parser message into one line that names the key and, for an unknown one, the nearest match."""
    message = message.replace("Problems parsing config", f"cannot read {files}")
    unknown = re.search(
        r"Option '([\w.]+)' is not accepted|does not accept option '([\w.]+)'|arguments: --([\w.]+)", message
    )
    group = re.search(r"Group '([\w.]+)' does not accept", message)
    in_stages = 'key "stages"' in message
    if unknown:
        name = next(part for part in unknown.groups() if part)
        in_stage = f"stages.{name.partition('.')[0]}"  # the parser flattens what an unknown key holds
        key = f"{group.group(1)}.{name}" if group else in_stage if in_stages else name
        return f"unknown key {key!r}: {_keys_hint(key)}"
    if "Unexpected config" in message:
        return f"{files} holds no keys; see configs/ for examples"
    missing = re.search(r"arguments are required: ([\w., ]+)", message)
    if missing and in_stages:
        return f"missing key stages.{missing.group(1)}: give it to every stage"
    if missing:
        return f"missing key {missing.group(1)}: give it in the --config file or as --{missing.group(1)} VALUE"
    message = re.sub(r"Problem with given class_path '[\w.]+':", "", message)
    message = re.sub(r"Parser key \"([\w.]+)\":", r"\1:", message)
    message = message.replace("<class 'tuple'>", "list")  # YAML knows no tuples
    return "configuration: " + re.sub(r"<class .(\w+).>", r"\1", " ".join(message.split()))


def _keys_hint(key: str) -> str:
    """Name the keys of the section that ``key`` was looked for in, and the nearest match of all."""
    keys = list(_all_keys(Config))
    section = key.rpartition(".")[0]
    siblings = [name for name in keys if name.rpartition(".")[0] == section] or [n for n in keys if "." not in n]
    hint = choices_hint(key, keys)
    nearest = hint[hint.index(";") :] if ";" in hint else ""
    return f"choose one of {', '.join(siblings)}{nearest}"


def _all_keys(section: type, prefix: str = "") -> list[str]:
    keys = []
    for entry in dataclasses.fields(section):
        keys.append(prefix + entry.name)
        if entry.name == "stages":
            keys += _all_keys(StageConfig, "stages.")
        elif dataclasses.is_dataclass(entry.type) and isinstance(entry.type, type):
            keys += _all_keys(entry.type, f"{prefix}{entry.name}.")
    return keys
