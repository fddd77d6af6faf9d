"""The notebooks are committed without outputs, and read the run folder and the records alone."""

import ast
import importlib
import re
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
over_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {
        "story_of_a_run",
        "approximation_error",
        "retention_front",
        "language_models",
    }


@over_notebooks
def test_outputs_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@over_notebooks
def test_code_writes_nothing_and_names_no_machine(path):
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    texts = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    absolute = [text for text in texts if isinstance(text, str) and text.startswith(("/", "~"))]
    assert absolute == []
    assert not re.search(r"\.write_|savefig|save_pretrained|open\(", code)


@over_notebooks
def test_what_it_imports_from_here_is_there(path):
    """A name that moves between modules fails here, not after the demo."""
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.partition(".")[0] in ("distill", "students", "teachers")]
    assert ours
    for node in ours:
        module = importlib.import_module(node.module)
        assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_notebook_of_records_draws_what_is_committed(monkeypatch):
    """The one notebook that needs no run: a record that it names and that is gone fails here, not after the demo."""
    path = next(path for path in NOTEBOOKS if path.stem == "retention_front")
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", sys.path[:])
    names = {}
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for source in cells:
        exec(source, names)  # the repository's own code, as the kernel would run it
    assert all(names["places"](task, length) for task in ("sst2", "cola", "mrpc", "stsb") for length in (512, 2048))
    for summaries in (names["zoo"], names["recipes"], names["retention"]):
        # Not those with exact short texts: what they keep there is not what their other form, fast at 2,048, keeps.
        for name, summary in summaries.items():
            timed = names["timed"](summary["attention"], summary["layers"])
            assert "-exact-" in name or all(names["speedup"](timed, length) for length in (512, 2048)), name


def test_notebook_of_language_models_draws_what_is_committed(monkeypatch):
    path = next(path for path in NOTEBOOKS if path.stem == "language_models")
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", sys.path[:])
    names = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert names["depths"] == sorted({point["layers"] for point in names["points"]})
