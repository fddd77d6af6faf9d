"""A run folder belongs to one configuration and is never written over."""

import errno
import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distill.config.parsing import load_config
from distill.config.schema import (
    BaselineConfig,
    ComparisonConfig,
    Config,
    DataConfig,
    StageConfig,
    StudentSettings,
    TrainingConfig,
)
from distill.training.run_folder import (
    SETTINGS_OF,
    create_run_folder,
    find_run_folder,
    locked,
    update_config,
)
from distill.utils.errors import UserError

DATA = {"data of train": "0123", "data of validation": "4567"}
ROOT = str(Path(__file__).resolve().parents[3])


@pytest.fixture
def config(tmp_path):
    return Config(
        "sst2", stages=(StageConfig("one", 1, 0.1, {"logits": 1.0}),), run_dir=str(tmp_path / "deep" / "run")
    )


@pytest.fixture
def created(config):
    """The folder of the configuration, as a run makes it."""
    folder = find_run_folder(config)
    create_run_folder(config, folder, DATA)
    return folder


def test_a_new_folder_holds_the_resolved_configuration(created, config, tmp_path):
    assert created.path == tmp_path / "deep" / "run"
    names = sorted(path.relative_to(created.path).as_posix() for path in created.path.rglob("*"))
    assert names == ["checkpoints", "checkpoints/inputs.json", "config.yaml"]
    assert load_config(created.path / "config.yaml") == config


def test_nothing_is_written_before_the_run_is_known_to_start(config, tmp_path):
    assert not find_run_folder(config).path.exists()
    assert not list(tmp_path.iterdir())


def test_the_same_configuration_goes_on(created, config):
    written = (created.path / "config.yaml").stat().st_mtime_ns
    assert find_run_folder(config) == created
    create_run_folder(config, created, DATA)
    assert (created.path / "config.yaml").stat().st_mtime_ns == written


def test_another_configuration_is_refused_and_the_keys_are_named(created, config):
    before = (created.path / "config.yaml").read_text()
    other = replace(config, seed=7, student=StudentSettings(num_layers=2, attention="softmax"))
    with pytest.raises(UserError) as refusal:
        find_run_folder(other)
    assert "(different: seed, student.attention, student.num_layers)" in str(refusal.value)
    assert "--run_dir" in str(refusal.value)
    assert (created.path / "config.yaml").read_text() == before


def test_a_run_goes_on_with_the_data_that_it_was_begun_with(created, config):
    with pytest.raises(UserError, match=r"^data of validation: no longer what run folder") as refusal:
        create_run_folder(config, created, DATA | {"data of validation": "other"})
    assert "put the files back, or give another --run_dir" in str(refusal.value)
    create_run_folder(config, created, DATA)


def test_a_folder_of_another_version_is_named(created, config):
    with open(created.path / "config.yaml", "a") as file:
        file.write("hyperdrive: {warp: 9}\n")
    with pytest.raises(UserError, match=r"torn or of another version: unknown key 'hyperdrive.*run_dir"):
        find_run_folder(config)


def test_a_renamed_run_goes_on(created, config, tmp_path):
    created.path.rename(tmp_path / "renamed")
    moved = find_run_folder(replace(config, run_dir=str(tmp_path / "renamed")))
    assert moved.path == tmp_path / "renamed"


def test_a_folder_of_something_else_is_refused(config):
    folder = find_run_folder(config)
    folder.path.mkdir(parents=True)
    (folder.path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds other files and no config"):
        find_run_folder(config)
    assert [path.name for path in folder.path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_a_kill_left_at_the_very_start_is_taken(config):
    folder = find_run_folder(config)
    folder.path.mkdir(parents=True)
    (folder.path / ".config.yaml.77.incomplete").write_text("task: ss")
    create_run_folder(config, find_run_folder(config), DATA)
    with locked(folder):
        assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "config.yaml"]


def test_two_processes_in_one_folder_are_one_too_many(created):
    """A second one is kept out while the first one lives, even if that is only the orphan of a launcher."""
    program = (
        "from pathlib import Path; from distill.training.run_folder import RunFolder, locked\n"
        f"with locked(RunFolder(Path({str(created.path)!r}))): print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=-1, stdout=-1, env=os.environ | {"PYTHONPATH": ROOT}
    )
    assert other.stdout.readline() == b"in\n"
    (created.path / "teacher.incomplete").mkdir()
    with pytest.raises(UserError, match="in use by another process"), locked(created):
        pass
    assert (created.path / "teacher.incomplete").exists()  # the other one may be writing it
    other.kill()
    other.wait()
    for _ in range(2):  # what this process has left it may enter again
        with locked(created):
            assert not (created.path / "teacher.incomplete").exists()


def test_the_next_start_tidies_what_a_kill_left(created):
    created.finish("layers", {"name": "layers"})
    for left in ("checkpoints/layers/step-00000003", "checkpoints/logits/step-00000001", "teacher.incomplete"):
        (created.path / left).mkdir(parents=True)
    (created.path / "student.replaced").mkdir()
    with locked(created):
        pass
    left = sorted(path.relative_to(created.path).as_posix() for path in created.path.rglob("*"))
    assert left == [
        "checkpoints",
        "checkpoints/inputs.json",
        "checkpoints/layers",
        "checkpoints/layers/result.json",
        "checkpoints/logits",
        "checkpoints/logits/step-00000001",
        "config.yaml",
        "student",
    ]


def test_an_empty_folder_is_taken(config, tmp_path):
    (tmp_path / "deep" / "run").mkdir(parents=True)
    assert find_run_folder(config).path == tmp_path / "deep" / "run"


@pytest.mark.parametrize("name", ["deep", "deep/run"])
def test_a_file_in_the_way_is_refused(name, config, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a file")
    with pytest.raises(UserError, match="there is a file in its place") as refusal:
        find_run_folder(config)
    assert "\n" not in str(refusal.value)


def test_a_file_that_comes_in_the_way_later_is_refused(config, tmp_path):
    folder = find_run_folder(config)
    (tmp_path / "deep").write_text("a file")
    with pytest.raises(UserError, match="cannot be made"):
        create_run_folder(config, folder, DATA)


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_write_permission_is_refused_even_to_resume(exists, config, monkeypatch):
    # Root may write anywhere, so the permission itself cannot be taken away here.
    if exists:
        create_run_folder(config, find_run_folder(config), DATA)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="no write permission"):
        find_run_folder(config)


def test_keys_without_effect_are_written_down_and_the_others_refused(created, config):
    wanted = replace(config, training=TrainingConfig(log_every=3), comparison=ComparisonConfig(resamples=7))
    update_config(wanted, find_run_folder(wanted))
    assert load_config(created.path / "config.yaml") == wanted
    created.phase("baseline").mkdir()
    find_run_folder(replace(wanted, comparison=ComparisonConfig(resamples=8)))
    with pytest.raises(UserError, match=r"different: baseline\.epochs"):
        find_run_folder(replace(wanted, baseline=BaselineConfig(epochs=2)))


def test_inputs_that_are_moved_need_checksums(created, config):
    """A folder of an earlier version, or one whose run was killed in between, cannot say what it was begun with."""
    moved = replace(config, data=DataConfig(dir="elsewhere"))
    create_run_folder(moved, find_run_folder(moved), DATA)
    (created.path / "checkpoints" / "inputs.json").unlink()
    with pytest.raises(UserError, match=r"^data\.dir: no longer what run folder"):
        create_run_folder(moved, created, DATA)
    create_run_folder(config, created, DATA)


@pytest.mark.parametrize("inputs", [{}, DATA | {"teacher.checkpoint": "89ab"}])
def test_inputs_that_come_or_go_are_named(inputs, created, config):
    with pytest.raises(UserError, match=r"^(data of train, data of validation|teacher\.checkpoint): no longer what"):
        create_run_folder(config, created, inputs)


def test_a_folder_whose_file_system_has_no_locks_is_named(created, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="gives no locks"), locked(created):
        pass


def test_configuration_and_tokenizer_of_a_checkpoint_are_inputs(config, tmp_path):
    """Of a folder that an earlier version began, only the weights are known."""
    name, weights = SETTINGS_OF + "teacher.checkpoint", {"teacher.checkpoint": "89ab"}
    for run_dir, begun, now, goes_on in (
        ("old", weights, weights | {name: "1"}, True),
        ("new", weights | {name: "1"}, weights | {name: "1"}, True),
        ("changed", weights | {name: "1"}, weights | {name: "2"}, False),
        ("gone", weights | {name: "1"}, weights, False),
    ):
        wanted = replace(config, run_dir=str(tmp_path / run_dir))
        create_run_folder(wanted, find_run_folder(wanted), DATA | begun)
        if goes_on:
            create_run_folder(wanted, find_run_folder(wanted), DATA | now)
        else:
            with pytest.raises(
                UserError, match=r"^configuration and tokenizer of teacher\.checkpoint: no longer what"
            ):
                create_run_folder(wanted, find_run_folder(wanted), DATA | now)
