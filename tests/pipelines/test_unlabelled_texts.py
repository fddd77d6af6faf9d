"""Texts without labels in a whole run: the stages alone read them, and a kill harms nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.data.synthetic_glue import generate
from distill.evaluation.record import read_record
from distill.reporting.record_tables import stage_cells

TEXTS = 200
TWICE, BLANK, SEEN = 7, 3, 5


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of another seed than the run's, some twice, some blank, and some that the run is scored on."""
    others = [row["sentence"] for row in generate("sst2", 7)["train"]]
    known = {row["sentence"] for split in generate("sst2", 0).values() for row in split}
    lines = list(dict.fromkeys(text for text in others if text not in known))[:TEXTS]
    assert len(lines) == TEXTS
    seen = list(dict.fromkeys(row["sentence"] for row in generate("sst2", 0)["validation"]))[:SEEN]
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join([*lines, *lines[:TWICE], *[" "] * BLANK, *seen]))
    return path


def steps(folder: Path, phase: str) -> int:
    return json.loads((folder / "checkpoints" / phase / "result.json").read_text())["history"][-1]["step"]


@pytest.fixture(scope="module")
def with_texts(tiny, finished, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[str]]:
    """Run with the texts once: its folder, what it printed, and its options."""
    folder = tmp_path_factory.mktemp("with_texts") / "run"
    teacher = ["--teacher.checkpoint", str(finished.folder / "teacher"), "--baseline.epochs", "null"]
    options = ["--data.unlabelled", str(texts), *teacher, "--comparison.lengths", "[]"]
    done = tiny.run(folder, *options)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, options


def test_the_stages_read_them_and_the_baseline_does_not(with_texts, finished) -> None:
    folder, output, _ = with_texts
    assert [steps(run, "layers") for run in (finished.folder, folder)] == [8, 14]  # 240 and 440 texts in batches of 32
    assert [steps(run, "logits") for run in (finished.folder, folder)] == [16, 28]
    assert steps(folder, "baseline") == 24, "three passes over train, as the stages take, of 240 texts alone"
    assert f"texts without labels: {TEXTS} (" in output
    assert f"left out: {BLANK} blank, {SEEN} in validation, {TWICE} duplicates" in output
    assert "about" not in output.partition("texts without labels")[2].partition("\n")[0], "few are counted exactly"


def test_the_record_says_what_was_read(with_texts, finished) -> None:
    folder, output, _ = with_texts
    record = read_record(folder)
    entry = record.unlabelled
    assert (entry.texts, entry.dropped) == (TEXTS, {"blank": BLANK, "in validation": SEEN, "duplicates": TWICE})
    assert f"({entry.tokens:,} tokens)" in output
    assert entry.share_of_stage_texts == pytest.approx(TEXTS / (TEXTS + 240))
    assert f"{TEXTS} texts without labels" in " ".join(stage_cells(record).notes)
    assert f"{TEXTS} texts without labels" in (folder / "student" / "README.md").read_text()
    assert "unlabelled" not in json.loads((finished.folder / "record.json").read_text())
    assert not (folder / "checkpoints" / "stage_tokens").exists(), "what only training needs goes with it"


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["checkpoints/stage_tokens/*.incomplete", "checkpoints/logits/step-*/manifest.json"]
)
def test_a_kill_changes_nothing(with_texts, tiny, same_end: Callable, tmp_path: Path, moment: str) -> None:
    folder, _, options = with_texts
    killed, errors = tiny.kill_when(tiny.start(tmp_path / "run", *options), tmp_path / "run", moment)
    assert killed, errors
    done = tiny.run(tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    same_end(tmp_path / "run", folder)


@pytest.mark.slow
def test_other_texts_are_refused_and_moved_ones_are_not(with_texts, tiny, texts: Path, tmp_path: Path) -> None:
    options = [*with_texts[2], "--baseline.epochs", "0"]
    killed, errors = tiny.kill_when(tiny.start(tmp_path / "run", *options), tmp_path / "run", "checkpoints/layers/s*")
    assert killed, errors
    moved, other = tmp_path / "moved.txt", tmp_path / "other.txt"
    moved.write_bytes(texts.read_bytes())
    other.write_text(texts.read_text() + "\none more")
    refused = tiny.run(tmp_path / "run", *options, "--data.unlabelled", str(other))
    assert refused.returncode == 2
    assert "texts of data.unlabelled: no longer what run folder" in refused.stderr
    without = tiny.run(tmp_path / "run", *options, "--data.unlabelled", "null")
    assert "texts of data.unlabelled: no longer what run folder" in without.stderr
    done = tiny.run(tmp_path / "run", *options, "--data.unlabelled", str(moved))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_several_processes_read_what_one_has_written(without_chance, tiny, histories, same_losses, tmp_path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"a {word} story number {n}\n" for n in range(30) for word in "gb"))
    options = ("--config", str(without_chance.config), "--data.unlabelled", str(tmp_path / "texts.txt"))
    options += ("--baseline.epochs", "0", "--comparison.lengths", "[]")
    for processes, folder in ((1, "one"), (2, "two")):
        launcher = {} if processes == 1 else {"launcher": processes}
        done = tiny.run(tmp_path / folder, *options, **launcher)
        assert done.returncode == 0, done.stderr
    same_losses(histories(tmp_path / "one"), histories(tmp_path / "two"))
