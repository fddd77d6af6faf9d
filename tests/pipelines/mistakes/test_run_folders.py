"""Run folders that were damaged between two starts: refused in one line, and nothing in them is touched."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config.parsing import load_config


def truncate(path: Path) -> None:
    """Cut the second half off a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    """Change one bit of a file, in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def write(text: str) -> Callable[[Path], object]:
    """Return what puts another content into a file."""
    return lambda path: path.write_text(text)


def move_away(path: Path) -> None:
    """Leave a link where a file or a folder was."""
    elsewhere = path.parents[len(path.parts) - 1 - path.parts.index("copy")] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


RESULT = "checkpoints/teacher/result.json"
TO_RUN_AGAIN = "put it back, or remove {} to run this phase again"
SPOILT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "other data": ("checkpoints/inputs.json", write('{"data of train": "0"}'), "data of train"),
    "torn inputs": ("checkpoints/inputs.json", truncate, "inputs.json is torn; remove it if data and weights"),
    "inputs that are a list": ("checkpoints/inputs.json", write("[]"), "it holds a list, not an object; remove it"),
    "torn configuration": ("config.yaml", truncate, "give another --run_dir"),
    "empty configuration": ("config.yaml", write(""), "torn or of another version"),
    "configuration that is a list": ("config.yaml", write("[1]"), "torn or of another version"),
    "configuration that is no text": ("config.yaml", lambda path: path.write_bytes(b"\xff\x00"), "torn or of another"),
    "newer configuration": (
        "config.yaml",
        lambda path: path.write_text(path.read_text() + "x: 1\n"),
        "unknown key 'x'",
    ),
    "no configuration": ("config.yaml", Path.unlink, "no config.yaml"),
    "torn result": (RESULT, truncate, "result.json is torn"),
    "result that is a list": (RESULT, write("[]"), "it holds a list, not an object; remove"),
    "result of something else": (RESULT, write("{}"), "name is missing"),
    "result with checksums of another kind": (
        RESULT,
        write('{"name": "teacher", "files": 3}'),
        "files is a whole number",
    ),
    "result with a history of another kind": (RESULT, write('{"name": "teacher", "history": [1]}'), "history[0] is"),
    "result that is nested without end": (RESULT, write("[" * 100_000), "result.json is torn"),
    "torn teacher": (
        "teacher/model.safetensors",
        truncate,
        "teacher/model.safetensors was changed since phase teacher",
    ),
    "a bit of the teacher": ("teacher/model.safetensors", flip_a_bit, TO_RUN_AGAIN.format("{}/checkpoints/teacher")),
    "another tokenizer": (
        "teacher/tokenizer.json",
        flip_a_bit,
        "tokenizer.json was changed since phase teacher ended",
    ),
    "no teacher": ("teacher", shutil.rmtree, "is missing since phase teacher ended"),
    "a bit of a stage": (
        "checkpoints/logits/student/model.safetensors",
        flip_a_bit,
        TO_RUN_AGAIN.format("{}/checkpoints/logits"),
    ),
    "no tokenizer of a stage": (
        "checkpoints/logits/student/tokenizer.json",
        Path.unlink,
        "is missing since phase logits",
    ),
    "a bit of the baseline": (
        "baseline/model.safetensors",
        flip_a_bit,
        TO_RUN_AGAIN.format("{}/checkpoints/baseline"),
    ),
    "no weights of the student": ("student/model.safetensors", Path.unlink, "is missing since the run left it"),
    "a bit of the student": ("student/model.safetensors", flip_a_bit, "move {}/student away to have it written again"),
    "student that is a link": ("student", move_away, "student is a link to"),
    "checkpoints that are a link": ("checkpoints", move_away, "checkpoints is a link to"),
    "weights that are a link": ("baseline/model.safetensors", move_away, "model.safetensors is a link to"),
    "record that is a link to nothing": (
        "record.json",
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
        "record.json is a link to nowhere",
    ),
}
WHILE_RUNNING = ("a bit of the baseline", "a bit of a stage")
"""Models that are looked at when they are needed, by when the run has begun to write."""


@pytest.fixture
def unreported(finished, tmp_path: Path) -> Path:
    """Return a run of which only the comparison is left to do."""
    run_dir = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    (run_dir / "report.html").unlink()
    return run_dir


@pytest.mark.parametrize("name", SPOILT)
def test_run_that_cannot_go_on(name: str, refused: Callable[..., str], unreported: Path) -> None:
    file, spoil, expected = SPOILT[name]
    spoil(unreported / file)
    before = changes(unreported)
    assert expected.format(unreported) in refused(run_dir=unreported)
    if name not in WHILE_RUNNING:
        assert changes(unreported) == before


def changes(folder: Path) -> dict[Path, int]:
    """Return when every file was changed last."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_without_its_student_is_not_finished(
    refused: Callable[..., str], finished, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    (run_dir / "student" / "model.safetensors").unlink()
    assert f"move {run_dir / 'student'} away" in refused(run_dir=run_dir)


@pytest.mark.slow
def test_a_student_that_is_gone_is_written_again(tiny, finished, tmp_path: Path, same_end) -> None:
    run_dir = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    shutil.rmtree(run_dir / "student")
    done = tiny.run(run_dir)
    assert done.returncode == 0, done.stderr
    same_end(run_dir, finished.folder)


@pytest.mark.slow
def test_what_was_built_on_a_phase_that_is_run_again_is_built_again(tiny, finished, tmp_path: Path, same_end) -> None:
    """The message of a damaged phase says what to remove; its results must not be mixed with those of the old one."""
    run_dir = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    (run_dir / "report.html").unlink()
    shutil.rmtree(run_dir / "checkpoints" / "layers")
    old = run_dir / "checkpoints" / "logits" / "result.json"
    old.write_text(json.dumps(json.loads(old.read_text()) | {"metrics": {"accuracy": 0.0}}))
    done = tiny.run(run_dir)
    assert done.returncode == 0, done.stderr
    trained = [line.partition(":")[0] for line in done.stdout.splitlines() if " on validation; " in line]
    assert trained == ["layers", "logits"]
    same_end(run_dir, finished.folder)


@pytest.mark.slow
def test_what_changes_nothing_that_was_computed_may_change(tiny, finished, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    (run_dir / "report.html").unlink()
    (run_dir / "record.json").unlink()
    free = {"training.log_every": "7", "training.checkpoint_every": "9", "cache.max_gigabytes": "1.5"}
    free |= {"comparison.resamples": "150", "comparison.batch_sizes": "[1]"}
    done = tiny.run(run_dir, *(word for key, value in free.items() for word in (f"--{key}", value)))
    assert done.returncode == 0, done.stderr
    assert " on validation; " not in done.stdout  # no phase is trained again
    written = load_config(run_dir / "config.yaml")
    assert (written.training.log_every, written.comparison.resamples, written.cache.max_gigabytes) == (7, 150, 1.5)
    assert {point["batch_size"] for point in json.loads((run_dir / "record.json").read_text())["speed"]} == {1}


def test_a_comparison_that_was_made_stays_as_it_is(refused: Callable[..., str], finished) -> None:
    assert "(different: comparison.resamples)" in refused("--comparison.resamples", "150", run_dir=finished.folder)


def test_data_may_be_moved_but_not_changed(refused: Callable[..., str], tiny, without_chance, tmp_path: Path) -> None:
    """The finished run of ``without_chance``, with its data and its teacher in another place."""
    source = without_chance.config.parent
    for name in ("data", "teacher"):
        shutil.copytree(source / name, tmp_path / name)
    config = tmp_path / "moved.yaml"
    config.write_text(without_chance.config.read_text().replace(str(source), str(tmp_path)))
    run_dir = Path(shutil.copytree(without_chance.folder, tmp_path / "copy"))
    (run_dir / "report.html").unlink()
    flip_a_bit(tmp_path / "teacher" / "teacher" / "model.safetensors")
    message = refused("--config", str(config), run_dir=run_dir, warned=True)
    assert message.startswith("error: teacher.checkpoint: no longer what run folder")
    train = tmp_path / "data" / "sst2" / "train.jsonl"
    train.write_text(train.read_text().replace("dull", "dim"))
    shutil.copy(source / "teacher" / "teacher" / "model.safetensors", tmp_path / "teacher" / "teacher")
    message = refused("--config", str(config), run_dir=run_dir, warned=True)
    assert message.startswith("error: data of held-out train, data of train: no longer what run folder")
    shutil.copy(source / "data" / "sst2" / "train.jsonl", train)
    tokenizer = tmp_path / "teacher" / "teacher" / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    message = refused("--config", str(config), run_dir=run_dir, warned=True)
    assert message.startswith("error: configuration and tokenizer of teacher.checkpoint: no longer what run folder")
    shutil.copy(source / "teacher" / "teacher" / tokenizer.name, tokenizer)
    done = tiny.run(run_dir, "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert " on validation; " not in done.stdout
    assert load_config(run_dir / "config.yaml").data.dir == str(tmp_path / "data")
    assert os.listdir(run_dir / "student")
