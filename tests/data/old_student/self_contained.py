"""Ship the student's source with its checkpoint, so that it loads where this repository is not installed.

transformers copies and imports a checkpoint's code as flat files that know each other by one-dot imports. It offers to
write them itself (`register_for_auto_class`), but fails on sub-packages; hence the flat copies here.
"""

import re
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
REGISTRY = ("attention",)
_RELATIVE_IMPORT = re.compile(r"^(\s*from )(\.+)([\w.]+)(?= import )", flags=re.MULTILINE)


def write_source(folder: Path, attentions: Mapping[str, type], auto_map: Mapping[str, str]) -> None:
    """Write flat copies of the model's modules into ``folder``: ``attention/favor.py`` becomes ``attention_favor.py``.

    Only what the model imports is written, found by following relative imports from the modules of its ``auto_map``;
    of the attention mechanisms only ``attentions``, by name, which the model uses.
    """
    waiting: list[tuple[str, ...]] = [(entry.partition(".")[0],) for entry in auto_map.values()]
    written: set[tuple[str, ...]] = set()
    while waiting:
        module = waiting.pop()
        if module in written:
            continue
        written.add(module)
        source, imported = _flatten(module, attentions)
        (folder / f"{'_'.join(module)}.py").write_text(source, encoding="utf-8")
        waiting.extend(imported)


def _flatten(module: tuple[str, ...], attentions: Mapping[str, type]) -> tuple[str, list[tuple[str, ...]]]:
    """Return a module's source with flat relative imports, and the modules that it imports."""
    path = PACKAGE.joinpath(*module)
    is_package = path.is_dir()
    source = (path / "__init__.py" if is_package else path.with_suffix(".py")).read_text(encoding="utf-8")
    if module == REGISTRY:
        source = _keep_used(source, attentions)
    here = module if is_package else module[:-1]
    imported: list[tuple[str, ...]] = []

    def flat_import(match: re.Match[str]) -> str:
        prefix, dots, name = match.groups()
        target = (*here[: len(here) - (len(dots) - 1)], *name.split("."))
        imported.append(target)
        return f"{prefix}.{'_'.join(target)}"

    return _RELATIVE_IMPORT.sub(flat_import, source), imported


def _keep_used(registry: str, attentions: Mapping[str, type]) -> str:
    """Drop the imports and entries of mechanisms that the model does not use, one line each, from the registry."""
    classes = {"SelfAttention", *(attention.__name__ for attention in attentions.values())}

    def used(line: str) -> bool:
        entry = re.match(r'    "(\w+)": ', line)
        imported = re.match(r"from \.\w+ import (\w+)$", line)
        return (entry is None or entry[1] in attentions) and (imported is None or imported[1] in classes)

    return "\n".join(line for line in registry.split("\n") if used(line))
