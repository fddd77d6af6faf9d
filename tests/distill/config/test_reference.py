"""The help and the page name every key, with what it does, takes and defaults to."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config.choices import ATTENTIONS, CHOICES
from distill.config.parsing import parse_command
from distill.config.reference import REQUIRED, read_sections
from distill.config.schema import Config
from distill.sweeps.schema import SweepConfig, parse_sweep
from students import STUDENTS

ROOT = Path(__file__).resolve().parents[3]


def all_keys(schema):
    return [key for section in read_sections(schema) for key in section.keys]


def help_of(parse, capsys, *arguments, **settings):
    with pytest.raises(SystemExit, match=r"^0$"):
        parse(["--help"], *arguments, **settings)
    return capsys.readouterr().out


@pytest.mark.parametrize("schema", [Config, SweepConfig])
def test_every_key_says_what_it_does(schema):
    assert [key.name for key in all_keys(schema) if not key.text.endswith(".")] == []


def test_choices_belong_to_keys_and_attentions_are_those_of_the_students():
    assert set(CHOICES) <= {key.name.replace("[]", "") for key in all_keys(Config)}
    assert set(ATTENTIONS) == set(STUDENTS)


def test_sections_follow_the_dataclasses():
    sections = {section.name: section for section in read_sections(Config)}
    assert list(sections)[:6] == ["", "data", "teacher", "teacher.scratch", "student", "stages[]"]
    found = {key.name: key for key in all_keys(Config)}
    assert found["task"].default == REQUIRED
    assert "custom" in found["task"].choices
    assert (found["stages"].default, found["teacher.epochs"].default) == ("auto", "null")
    assert found["student.features"].values == "fixed|redrawn|learned"
    assert found["student.layer_map"].values == "even|first|last|importance|[INTEGER, ...]"
    assert found["comparison.memory"].default == "true"


@pytest.mark.parametrize(("parse", "schema"), [(parse_command, Config), (parse_sweep, SweepConfig)])
def test_help_starts_with_one_line_of_usage_and_lists_every_key(parse, schema, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    printed = help_of(parse, capsys, description="What it is for.")
    lines = printed.splitlines()
    assert lines[0].startswith("usage: ")
    assert lines[0].endswith(" --config FILE [--KEY VALUE ...]")
    assert lines[1:3] == ["", "What it is for."]
    for key in all_keys(schema):
        option = key.name if "[]" in key.name else f"--{key.name}"
        assert sum(line.startswith(f"  {option} ") for line in lines) == 1, key.name
    assert all(name in printed for choices in (CHOICES.values() if schema is Config else ()) for name in choices)


@pytest.mark.parametrize("name", ["compare", "export", "bench_kernels", "bench_mechanisms", "bench_repeatability"])
def test_help_of_the_other_commands_says_what_every_option_does(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = help_of(importlib.import_module(f"pipelines.{name}").parse, capsys).splitlines()
    assert lines[0].startswith("usage: ")
    assert lines[0].endswith("[--OPTION VALUE ...]")
    assert lines[1] == ""
    options = [number for number, line in enumerate(lines) if line.startswith("  -")]
    assert len(options) > 4
    for number in options:
        has_help = "  " in lines[number].strip() or lines[number + 1].startswith(" " * 20)
        assert has_help, lines[number]


def test_help_needs_no_torch():
    code = (
        "import sys; from distill.config.parsing import parse_command\n"
        "try: parse_command(['--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
