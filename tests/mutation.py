"""Change one operator, constant or call at a time in the modules that decide numbers, and list what no test notices.

python tests/mutation.py                                    how many changes there are, module by module
python tests/mutation.py --sample 20 --seed 0               twenty of every module, drawn by the seed
python tests/mutation.py distill/training/stepper.py        all of one module

Nothing is written: a fork of this process imports the changed module instead of the file, and runs the tests that
stand beside it. A change that they pass with is printed; it is either equivalent, or what they do not protect.
"""

import argparse
import ast
import contextlib
import importlib.util
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "distill/objectives/losses.py": ("distill/objectives",),
    "distill/objectives/stage_losses.py": ("distill/objectives",),
    "distill/evaluation/bootstrap.py": (
        *("distill/evaluation/test_significance.py", "distill/evaluation/test_label_sets.py"),
    ),
    "distill/evaluation/metrics.py": ("distill/evaluation/test_metrics.py", "distill/evaluation/test_label_sets.py"),
    "distill/evaluation/thresholds.py": ("distill/evaluation/test_label_sets.py",),
    "distill/training/loop.py": ("distill/training/test_loop.py", "distill/training/test_loop_resume.py"),
    "distill/training/stepper.py": ("distill/training/test_stepper.py", "distill/training/test_loop.py"),
    "distill/training/schedules.py": ("distill/training/test_loop.py",),
    "distill/training/optimizer.py": ("distill/objectives/test_stage_losses.py",),
    "distill/data/splits.py": (
        *("distill/data/test_splits.py", "distill/data/test_labels.py", "distill/data/test_inspection.py"),
        *("distill/data/test_auxiliary_tasks.py", "distill/data/test_checksums.py"),
    ),
    "distill/data/label_stratification.py": ("distill/data/test_label_sets.py", "distill/data/test_splits.py"),
    "distill/data/batching.py": ("distill/data/test_batching.py",),
    "teachers/cache_folder.py": ("teachers/test_cache_folder.py", "teachers/test_output_cache.py"),
    "teachers/output_cache.py": ("teachers/test_output_cache.py", "teachers/test_outputs.py"),
    "teachers/output_format.py": ("teachers/test_outputs.py", "teachers/test_output_plan.py"),
    "teachers/output_plan.py": ("teachers/test_output_plan.py",),
    **{
        f"students/attention/ops/{path.name}": ("students/attention/ops", "students/contract", "students/attention")
        for path in sorted((ROOT / "students/attention/ops").glob("[a-z]*.py"))
    },
}
"""Module to the tests beside it, below ``tests/``."""
LIBRARIES = ("torch", "transformers", "accelerate", "pandas", "pyarrow", "sklearn", "scipy.stats", "pytest")
"""Imported once, for all forks, as what else the tests turn out to import; none of ours is."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
SLOWER = 5.0
"""A change after which the tests take so many times as long is noticed, too."""
OPERATORS: dict[type, type] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Pow: ast.Mult, ast.Mod: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
}
SKIPPED = ("annotation", "returns", "decorator_list", "type_params")
"""Fields of the syntax tree that compute nothing."""


@dataclass(frozen=True)
class Change:
    """One change of a module, not yet made."""

    line: int
    words: str
    make: Callable[[], None]


def changes(tree: ast.AST) -> Iterator[Change]:
    """Yield every change of a syntax tree; each is made in place."""
    for field, value in ast.iter_fields(tree):
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if field not in SKIPPED and isinstance(child, ast.AST):
                if isinstance(child, ast.expr | ast.stmt):
                    yield from _changes_of(child, _replacement(tree, field, index))
                yield from changes(child)


def _replacement(parent: ast.AST, field: str, index: int | None) -> Callable[[ast.AST], None]:
    """Return what puts another node where a child stands."""

    def replace(node: ast.AST) -> None:
        if index is None:
            setattr(parent, field, node)
        else:
            getattr(parent, field)[index] = node

    return replace


def _changes_of(node: ast.AST, replace: Callable[[ast.AST], None]) -> Iterator[Change]:
    """Yield the changes of one node itself."""

    def change(words: str, make: Callable[[], None]) -> Change:
        return Change(node.lineno, f"{ast.unparse(node)}  ->  {words}", make)  # type: ignore[attr-defined]

    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in OPERATORS:
        other = OPERATORS[type(node.op)]()
        yield change(other.__class__.__name__, lambda: setattr(node, "op", other))
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        others = [OPERATORS[type(node.ops[0])](), *node.ops[1:]]
        yield change(others[0].__class__.__name__, lambda: setattr(node, "ops", others))
    elif isinstance(node, ast.UnaryOp):
        yield change(ast.unparse(node.operand), lambda: replace(node.operand))
    elif isinstance(node, ast.IfExp):
        yield change(ast.unparse(node.orelse), lambda: replace(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield change(repr(value), lambda: setattr(node, "value", value))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield change("left out", lambda: replace(ast.copy_location(ast.Pass(), node)))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        inner = node.func.value
        yield change(ast.unparse(inner), lambda: replace(inner))


class Changed(MetaPathFinder, Loader):
    """Gives the changed module to whoever imports it."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return this as the loader of the changed module alone."""
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed code."""
        exec(self.code, module.__dict__)


def passes(module: str, number: int | None, seconds: float, imported: Path | None = None) -> bool:
    """Tell whether the tests of a module pass in time with its change of this number; None: as it is.

    What libraries they import is written to ``imported``.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(int(seconds) + 1)
        os.setsid()
        code = _run_tests(module, number)
        if imported is not None:
            imported.write_text("\n".join(name for name, each in sys.modules.items() if _is_of_a_library(each)))
        os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _is_of_a_library(module: ModuleType) -> bool:
    return "site-packages" in str(getattr(module, "__file__", None)) and not str(module.__name__).startswith("_")


def import_libraries(names: Sequence[str]) -> None:
    """Import what all forks will need once; none of ours is among it."""
    for name in names:
        with contextlib.suppress(Exception):  # a part that only its package imports
            importlib.import_module(name)


def _run_tests(module: str, number: int | None) -> int:
    import pytest

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    tree = ast.parse((ROOT / module).read_text())
    if number is not None:
        list(changes(tree))[number].make()
    code = compile(ast.fix_missing_locations(tree), module, "exec")
    sys.meta_path.insert(0, Changed(module.removesuffix(".py").replace("/", "."), ROOT / module, code))
    tests = [str(ROOT / "tests" / name) for name in TESTS[module]]
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not real", *tests]))


def tried(module: str, sample: int | None, generator: random.Random) -> Iterator[tuple[Change, bool]]:
    """Yield changes of a module, and whether all tests pass with them."""
    found = list(changes(ast.parse((ROOT / module).read_text())))
    chosen = range(len(found)) if sample is None else generator.sample(range(len(found)), min(sample, len(found)))
    with tempfile.NamedTemporaryFile() as file:
        assert passes(module, None, 3600, Path(file.name)), f"the tests of {module} fail without any change"
        import_libraries(Path(file.name).read_text().split())
    started = time.monotonic()
    assert passes(module, None, 3600), f"the tests of {module} fail without any change, the second time"
    limit = SLOWER * (time.monotonic() - started)
    for number in sorted(chosen):
        yield found[number], passes(module, number, limit)


def main() -> int:
    """Print the survivors of every module, and how many there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="by default all")
    parser.add_argument("--sample", type=int, help="changes of every module; by default all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    sys.path.insert(0, str(ROOT))
    if not options.modules and options.sample is None:
        for module in TESTS:
            print(f"{module:45}{len(list(changes(ast.parse((ROOT / module).read_text())))):5}")
        return 0
    import_libraries(LIBRARIES)
    count, missed = 0, 0
    for module in options.modules or TESTS:
        for change, survived in tried(module, options.sample, random.Random(options.seed)):
            count, missed = count + 1, missed + survived
            if survived:
                print(f"{module}:{change.line}: {change.words}", flush=True)
    print(f"{count - missed} of {count} changes noticed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
