"""Every run of every shipped sweep has a good configuration."""

from pathlib import Path

import pytest

from distill.config.parsing import parse_config
from distill.sweeps.schema import SweepRun, parse_sweep, sweep_runs
from distill.utils.errors import UserError
from students import ATTENTIONS, STUDENTS

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "configs" / "sweeps"
FILES = {
    "sst2": ["sst2"],
    "ablation": ["ablation"],
    "front": ["front"],
    "glue": ["glue"],
    "glue_abc": ["glue", "glue_abc"],
    "glue_deeper": ["glue_deeper"],
    "glue_deeper_sst2": ["glue_deeper", "glue_deeper_sst2"],
    "glue_exact": ["glue", "glue_exact"],
    "glue_luna_kernel": ["glue", "glue_luna_kernel"],
    "glue_full_depth": ["glue_full_depth"],
    "glue_full_depth_copies": ["glue_full_depth_performer", "glue_full_depth_copies"],
    "glue_full_depth_performer": ["glue_full_depth_performer"],
    "glue_full_depth_sst2": ["glue_full_depth", "glue_full_depth_sst2"],
    "language_models": ["language_models"],
    "language_models_distilled": ["language_models_distilled"],
    "klue": ["klue"],
    "klue_seeds_nli": ["klue", "klue_seeds_nli"],
    "klue_seeds_sts": ["klue", "klue_seeds_sts"],
    "long_pairs": ["long_pairs"],
    "long_pairs_longer": ["long_pairs", "long_pairs_longer"],
    "narrow": ["narrow"],
    "recipes": ["recipes"],
    "speeds": ["speeds"],
    "zoo": ["zoo"],
    "zoo_embedded": ["zoo", "zoo_embedded"],
}
"""Name of a sweep to the files that its header gives to --config, in order."""


def grid(name: str, monkeypatch: pytest.MonkeyPatch) -> list[SweepRun]:
    """Return the runs of a sweep, started where its header says: in the repository's root."""
    monkeypatch.chdir(ROOT)
    arguments = [part for file in FILES[name] for part in ("--config", str(FOLDER / f"{file}.yaml"))]
    return sweep_runs(parse_sweep([*arguments, "--bench", "null"]))


def test_no_file_is_forgotten():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_student_and_every_task_can_be_run(name, monkeypatch):
    runs = grid(name, monkeypatch)
    first = runs[0]
    some = [cell for cell in runs if first.task == cell.task or first.student == cell.student]
    for cell in some:
        options = cell.command[cell.command.index("--config") :]
        config = parse_config(options, STUDENTS)
        assert config.seed == cell.seed
        assert config.task == cell.task
    command = " ".join(f"--config configs/sweeps/{file}.yaml" for file in FILES[name])
    assert command in (FOLDER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", ["zoo", "zoo_embedded"])
def test_the_zoo_is_whole(name, monkeypatch):
    students = {cell.student for cell in grid(name, monkeypatch)}
    assert students - {"performer-learned"} == set(STUDENTS)
    assert set(ATTENTIONS) <= students


def test_a_key_on_the_command_line_takes_the_place_of_the_files(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = {"data.dir": "DATA", "teacher.scratch.num_layers": "2", "baseline.epochs": "1"}
    more = [part for key, value in given.items() for part in (f"--overrides.{key}", value)]
    sweep = parse_sweep(["--config", str(FOLDER / "glue.yaml"), *more])
    assert sweep.overrides["teacher.checkpoint"] == "runs/teachers/{task}/teacher"
    assert {key: str(sweep.overrides[key]) for key in given} == given
    options = sweep_runs(sweep)[0].command
    config = parse_config(options[options.index("--config") :], STUDENTS)
    assert (config.data.dir, config.data.max_length, config.baseline.epochs) == ("DATA", 128, 1)
    assert config.teacher.scratch.num_layers == 2


def test_keys_of_one_section_on_the_command_line_do_not_replace_each_other(monkeypatch):
    """Neither those of the file; a value is read as in a file, names as they are written."""
    monkeypatch.chdir(ROOT)
    keys = ["--overrides.data.dir", "DATA", "--overrides.data.seed=3", "--overrides.data.label_names", "[no, yes]"]
    keys += ["--overrides.hub.repo", "null", "--overrides.baseline.epochs", "2"]
    keys += ["--students.narrow.student.num_layers", "2", "--students.narrow.student.hidden_size", "64"]
    keys += ["--students.performer-3.student.num_features", "64"]
    sweep = parse_sweep(["--config", str(FOLDER / "glue.yaml"), *keys])
    expected = {"data.dir": "DATA", "data.seed": 3, "data.label_names": ["no", "yes"], "hub.repo": None}
    assert {key: sweep.overrides[key] for key in expected} == expected
    assert sweep.overrides["baseline.epochs"] == 2
    assert sweep.overrides["cache.dir"] == "runs/teacher_outputs"
    assert sweep.students["narrow"] == {"student.num_layers": 2, "student.hidden_size": 64}
    assert sweep.students["performer-3"] == {"student.num_layers": 3, "student.num_features": 64}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--overrides.data.dir"], r"sweep: --overrides\.data\.dir has no value; give one behind it"),
        (
            ["--overrides.data.dir", "--workers", "2"],
            r"sweep: --overrides\.data\.dir has no value; give one behind it",
        ),
        (["--overrides.stages", "[a"], r"--overrides\.stages: '\[a' cannot be read"),
    ],
)
def test_a_key_without_a_value_that_can_be_read_is_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        parse_sweep(["--config", str(FOLDER / "glue.yaml"), *arguments])


def test_what_is_printed_is_the_sweep_with_every_key_that_was_given(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    keys = ["--overrides.data.dir", "DATA", "--students.softmax.student.num_layers", "2", "--seeds", "[1, 2]"]
    given = ["--config", str(FOLDER / "klue.yaml"), *keys]
    with pytest.raises(SystemExit) as ended:
        parse_sweep([*given, "--print_config"])
    assert ended.value.code == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    sweep = parse_sweep(given)
    assert (sweep.overrides["data.dir"], sweep.students["softmax"]["student.num_layers"]) == ("DATA", 2)
    assert parse_sweep(["--config", str(printed)]) == sweep
