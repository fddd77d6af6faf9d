"""What holds for the repository as a whole: few clocks, one reader of YAML, names at the top level."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("students", "distill", "teachers", "pipelines")
TOP_LEVEL = {
    *(
        "README.md",
        "requirements.txt",
        "distill",
        "students",
        "teachers",
        "pipelines",
        "configs",
        "notebooks",
        "tests",
    ),
    *("Makefile", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "pyproject.toml"),
}
MADE_BY_RUNS = {"runs", "build", "bert_distill.egg-info"}
"""Left by commands and by `pip install -e .`."""


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def absolute_imports(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level package of every absolute import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_durations_are_of_one_clock():
    for package in PACKAGES:
        for path, tree in sources(package):
            names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            names |= {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
            clocks = names & {"perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "thread_time"}
            assert not clocks, f"{path} reads {clocks}, all others perf_counter"


def test_one_place_reads_yaml():
    readers = [path for package in PACKAGES for path, tree in sources(package) if "yaml" in absolute_imports(tree)]
    assert readers == [Path("distill/config/yaml_files.py")]


def test_top_level():
    entries = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - MADE_BY_RUNS
    assert entries == TOP_LEVEL


def test_contributing_is_short_and_names_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert len(text.splitlines()) <= 60
    named = re.findall(r"`((?:configs|pipelines|distill|students|notebooks|tests|\.ci)/[\w./-]*\w)`", text)
    named += re.findall(r"\]\(([^)]+)\)", text)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    for theirs, ours in (
        ("title", "name"),
        ("version", "version"),
        ("license", "license"),
        ("abstract", "description"),
    ):
        assert citation[theirs] == project[ours]


def test_ci_runs_on_the_versions_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    versions = workflow["jobs"]["run"]["strategy"]["matrix"]["python-version"]
    assert versions == ["3.11", "3.12", "3.13"]
    assert project["requires-python"] == f">={versions[0]}"


def test_there_is_a_console_command_for_every_script():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    scripts = {path.stem for path in (ROOT / "pipelines").glob("*.py")} - {"__init__"}
    assert {entry.partition(":")[0] for entry in project["scripts"].values()} == {
        f"pipelines.{name}" for name in scripts
    }
    for entry in project["scripts"].values():
        module, _, name = entry.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert command.args == (importlib.import_module(module).main,)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launcher_files_are_accelerates(path):
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert config.num_processes >= 1
    assert f"configs/accelerate/{path.name}" in path.read_text(), "the header names the command"
    deepspeed = re.fullmatch(r"deepspeed_zero(\d)", path.stem)
    if deepspeed:
        assert config.deepspeed_config["zero_stage"] == int(deepspeed.group(1))
    assert config.use_cpu is (path.stem == "cpu")


def test_there_is_a_launcher_file_for_every_kind_of_machine():
    found = {path.stem for path in (ROOT / "configs" / "accelerate").glob("*.yaml")}
    assert found == {"cpu", "single_gpu", "multi_gpu", "multi_node", "deepspeed_zero2", "deepspeed_zero3"}


def test_torch_is_pinned():
    assert re.search(r"^torch==2\.13\.0\b", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def test_no_configuration_names_a_folder_that_a_reader_does_not_have():
    named = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if "../" in path.read_text()]
    assert named == []
