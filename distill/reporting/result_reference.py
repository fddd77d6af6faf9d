"""The tables of the pages that list things: the records, and the keys of a configuration."""

import ast
import dataclasses
import inspect
from collections.abc import Iterator

from distill.config import schema
from distill.reporting.result_records import Records, markdown_table

EXPERIMENTS = {
    "ablation": "each part of the recipe, taken away or changed",
    "chaos": "runs that were killed and started again",
    "demo": "`make demo`, and its seeds in both precisions",
    "front": "the grid of depths and kinds of attention",
    "glue": "the default recipe on five GLUE tasks",
    "imdb": "long reviews",
    "kernels": "core attention alone",
    "mechanism_costs": "speed, memory and growth of every mechanism",
    "mechanisms": "every mechanism, distilled alike on real GLUE",
    "mechanisms_embedded": "the same on miniature GLUE",
    "own_data": "data of one's own, with the recipe chosen from it",
    "recipes": "ways to a student of three layers",
    "repeatability": "the same speed comparison several times",
    "speed": "speed of the students of `glue` and `front`",
    "sst2": "fewer layers and linear attention at once, SST-2; the ONNX export",
    "training_speed": "four ways to match layers",
}


def index(records: Records) -> list[str]:
    """Every folder of records, what it holds, how many, and at which commits they were made."""
    rows = []
    for folder in sorted({path.parent.name for path in records.paths()}):
        names = [path for path in records.paths() if path.parent.name == folder]
        commits: set[str] = set()
        for path in names:
            if path.suffix == ".json":
                environment = records.json(str(path.with_suffix(""))).get("environment") or {}
                commits |= {environment["commit"][:7]} if environment.get("commit") else set()
        shown = sorted(commits)
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        rows.append(
            [f"[{folder}](records/{folder})", EXPERIMENTS[folder], str(len(names)), ", ".join(shown[:4]) + more]
        )
    return markdown_table(["records", "of", "files", "commits"], rows)


def config_keys(records: Records) -> list[str]:
    """Every key of a configuration with its default and what the schema says about it."""
    return markdown_table(["key", "default", "what it does"], list(_keys(schema.Config, "")))


def _keys(section: type, prefix: str) -> Iterator[list[str]]:
    """Yield key, default and docstring of every field, depth first."""
    documented = _field_docstrings(section)
    for field in dataclasses.fields(section):
        key, default = f"{prefix}{field.name}", field.default
        if dataclasses.is_dataclass(default):
            yield from _keys(type(default), f"{key}.")
            continue
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield [f"`{key}`", _default(default), _cell(documented.get(field.name, ""))]
        if key == "stages":
            yield from _keys(schema.StageConfig, "stages[].")


def _default(value: object) -> str:
    """Write a default as YAML does."""
    if value is dataclasses.MISSING:
        return "required"
    if value == ():
        return "`auto`"
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, (bool, type(None))) else None
    return f"`{text or str(value)}`".replace("'", "")


def _field_docstrings(section: type) -> dict[str, str]:
    """Return the string below every field of a dataclass, by field."""
    body = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _cell(text: str) -> str:
    """Escape what would end a cell or start a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")
