"""Who may import whom: one list, and every package imports only what stands left of it.

"Where does X go?" has one answer: the leftmost package whose imports allow it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    *("students", "distill.utils", "distill.tasks", "distill.config", "distill.data", "distill.models"),
    *("distill.objectives", "distill.training", "distill.benchmark", "distill.evaluation", "distill.export"),
    *("distill.preflight", "distill.reporting", "distill.sweeps", "teachers", "pipelines.run", "pipelines"),
)
KNOW_STUDENTS = {
    "distill.objectives",
    "distill.training",
    "distill.preflight",
    "teachers",
    "pipelines.run",
    "pipelines",
}
"""The others work on any classifier."""
TABLE, KNOW_TABLE = "students.families", {"distill.models"}
"""Who may read, of the students, the table alone of what each family of teachers calls the parts of a BERT."""
FORBIDDEN = {
    "distill.utils": {"transformers", "datasets", "pandas"},
    "distill.tasks": {"numpy", "torch", "transformers", "datasets", "pandas"},
    "distill.config": {"numpy", "torch", "transformers", "datasets", "pandas"},
    "distill.reporting": {
        *("torch", "distill.models", "distill.objectives", "distill.training", "distill.benchmark"),
        *("distill.export", "distill.preflight"),
    },
}
"""`config` costs the command line no library, `reporting` sees records and never models."""
LAZY = {("distill/utils/cli.py", "transformers")}
"""Imported inside a function, where the library is loaded already."""
OURS = ("students", "distill", "teachers", "pipelines")
MODULES = sorted(path.relative_to(ROOT) for package in OURS for path in (ROOT / package).rglob("*.py"))


def package_of(module: str) -> str | None:
    """Return the entry of `ORDER` that a dotted name belongs to; None for `distill` itself and for libraries."""
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in ORDER:
            return name
    return None


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the absolute dotted name of every import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            whole = node.module in ("distill", "pipelines")
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if whole else (node.module,)


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)


def test_every_module_has_a_place():
    homeless = [path for path in MODULES if package_of(name_of(path)) is None and path != Path("distill/__init__.py")]
    assert not homeless
    assert {package_of(name_of(path)) for path in MODULES} - {None} == set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_stands_left_of_it(package):
    allowed = set(ORDER[: ORDER.index(package) + 1])
    if package not in KNOW_STUDENTS:
        allowed -= {"students"}
    for path in MODULES:
        if package_of(name_of(path)) == package:
            ours = {name: package_of(name) for name in imports(parse(path)) if name.split(".")[0] in OURS}
            known = {TABLE} if package in KNOW_TABLE else set()
            wrong = [name for name, place in ours.items() if place not in allowed and name not in known]
            assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_what_a_package_never_imports(package):
    for path in MODULES:
        if package_of(name_of(path)) == package:
            found = {entry for name in imports(parse(path)) for entry in (name.split(".")[0], package_of(name))}
            found -= {library for file, library in LAZY if Path(file) == path}
            assert not found & FORBIDDEN[package], f"{path} imports {found & FORBIDDEN[package]}"


def imported_at_once(path: Path) -> Iterator[str]:
    """Yield what a module imports as soon as it is imported itself: nothing inside functions, or for types alone."""
    yield from imports(
        ast.Module([node for node in parse(path).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    )


def test_a_first_step_waits_for_no_library_that_only_later_ones_need():
    """They cost seconds of CPU and a hundred MB: of metrics, of the comparison, of other files and launchers."""
    waiting, seen = ["pipelines.run.command", "pipelines.run.preflight", "pipelines.run.phases"], set[str]()
    while waiting:
        name = waiting.pop()
        file = Path(*name.split(".")).with_suffix(".py")
        file = file if (ROOT / file).exists() else Path(*name.split("."), "__init__.py")
        if name not in seen and name.split(".")[0] in OURS and (ROOT / file).exists():
            waiting += imported_at_once(file)
        seen.add(name)
    late = (
        "evaluate",
        "datasets",
        "sklearn",
        "scipy.stats",
        "matplotlib",
        "pandas",
        "onnx",
        "onnxruntime",
        "deepspeed",
    )
    late += ("torch.utils.cpp_extension",)
    assert "distill.training.loop" in seen
    assert not [name for name in seen if name.startswith(late)]


def test_students_are_self_contained():
    """A saved student carries this code alone, under another package name: its own imports must be relative."""
    for path in MODULES:
        if path.parts[0] == "students":
            tree = parse(path)
            assert not {name.split(".")[0] for name in imports(tree)} & set(OURS), path
            levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            assert all(level < len(path.parts) for level in levels), f"{path} leaves the package"
