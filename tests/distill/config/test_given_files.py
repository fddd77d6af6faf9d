"""Files that are missing or given in the wrong place: the message names the right file, or the right option."""

import dataclasses
from pathlib import Path

import pytest

from distill.config.given_files import SWEEP_KEYS, missing_file
from distill.config.parsing import parse_config
from distill.sweeps.schema import SweepConfig, parse_sweep
from distill.utils.errors import UserError
from students import STUDENTS

ROOT = Path(__file__).resolve().parents[3]
RUN, SWEEP, PRESET = "configs/sst2.yaml", "configs/sweeps/sst2.yaml", "configs/students/abc_3_layers.yaml"
PRESETS = ", ".join(f"configs/students/{path.name}" for path in sorted((ROOT / "configs/students").glob("*.yaml")))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def refusal(parse, *arguments):
    """Return what a command line is refused with, in one line."""
    with pytest.raises(UserError) as refused:
        parse(list(arguments))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def of_run(*arguments):
    return refusal(lambda given: parse_config(given, STUDENTS), *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config", PRESET], f"{PRESET} is a preset of a student: give it with --student"),
        (["--config", RUN, "--config", PRESET], f"{PRESET} is a preset of a student: give it with --student"),
        (["--config", SWEEP], f"{SWEEP} describes a sweep: give it to pipelines/sweep.py"),
        (["--config", RUN, "--student", RUN], f"{RUN} configures one run: give it with --config"),
        ([f"--config={RUN}", f"--student={SWEEP}"], f"{SWEEP} describes a sweep: give it to pipelines/sweep.py"),
        (
            ["--config", "configs/costum.yaml"],
            "--config configs/costum.yaml does not exist; did you mean configs/custom.yaml?",
        ),
        (["--config=configs/sst2.yml"], "--config configs/sst2.yml does not exist; did you mean configs/sst2.yaml?"),
        (["--config", "sst2.yaml"], "--config sst2.yaml does not exist; did you mean configs/sst2.yaml?"),
        (["--config", "configs"], "--config configs is a folder; choose one of configs/cola.yaml, "),
        (["--config", ""], "--config '' does not exist; choose one of configs/cola.yaml, "),
        (
            ["--config", RUN, "--student", "nope"],
            f"--student nope does not exist; choose one of {PRESETS}, or give another YAML file",
        ),
        (
            ["--config", RUN, "--student", "abc_3_layer"],
            f"--student abc_3_layer does not exist; did you mean {PRESET}?",
        ),
        (["--config", RUN, "--student", "configs/students"], "--student configs/students is a folder; choose one of "),
        (["--config", RUN, "--data", "nope.yaml"], "--data nope.yaml does not exist; give a YAML file"),
        (
            ["--config", RUN, "--teacher.scratch", "x.yaml"],
            "--teacher.scratch x.yaml does not exist; give a YAML file",
        ),
    ],
)
def test_a_run(arguments, expected):
    assert of_run(*arguments).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dir: x\nmax_length: 9\n", "is a preset of section data: give it with --data"),
        ("epochs: 3\n", "is a preset of section teacher or baseline: give it with --teacher or --baseline"),
        ("vocabulary_size: 99\n", "is a preset of section teacher.scratch: give it with --teacher.scratch"),
        ("attention_options: {window: 4}\nsoftmax_layers: [0]\n", "is a preset of a student: give it with --student"),
        ("attention: abc\nhyperdrive: 9\n", "unknown key"),  # of no kind that we know
        ("task: sst2\nhyperdrive: 9\n", "unknown key 'hyperdrive'"),  # a run's, with a slip
        ("task: sst2\nstudent: nope.yaml\n", "--student nope.yaml does not exist; choose one of configs/students/"),
    ],
)
def test_files_of_ones_own(text, expected, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert expected in of_run("--config", str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["", "- a\n", "num_layers\n"])
def test_a_preset_without_keys(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert "mine.yaml holds no keys of section student" in of_run(
        "--task", "sst2", "--student", str(tmp_path / "mine.yaml")
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RUN, f"{RUN} configures one run; a sweep has dir, configs, students (configs/sweeps/)"),
        (PRESET, f"{PRESET} is a preset of a student; a sweep has dir, configs, students (configs/sweeps/)"),
        (
            "configs/sweeps/zoos.yaml",
            "--config configs/sweeps/zoos.yaml does not exist; did you mean configs/sweeps/zoo.yaml?",
        ),
        ("ablation", "--config ablation does not exist; did you mean configs/sweeps/ablation.yaml?"),
    ],
)
def test_a_sweep(given, expected):
    assert refusal(parse_sweep, "--config", given) == expected


def test_what_a_sweep_must_have():
    fields = dataclasses.fields(SweepConfig)
    missing = dataclasses.MISSING
    assert tuple(each.name for each in fields if each.default is missing is each.default_factory) == SWEEP_KEYS


def test_a_file_beside_it_is_nearer_than_one_of_ours(tmp_path):
    for name in ("custom.yaml", "notes.txt"):
        (tmp_path / name).write_text("")
    assert f"did you mean {tmp_path / 'custom.yaml'}?" in missing_file("config", str(tmp_path / "costum.yaml"))
    assert "notes.txt" not in missing_file("config", str(tmp_path / "notes.yaml"))
