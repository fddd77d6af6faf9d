"""What an older commit saved stays good: its student loads and answers as it did, its killed run goes on to its end.

`tests/data/README.md` says what the files are.
"""

import json
import shutil
from pathlib import Path

import torch
from helpers.small_students import logits_elsewhere
from helpers.warm import Warm
from safetensors.torch import load_file
from torch import Tensor

from distill.models.loading import load_classifier

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
STUDENT = DATA / "old_student"


SAVED = json.loads((DATA / "old_student.json").read_text())
INPUTS = {name: torch.tensor(rows) for name, rows in SAVED["inputs"].items()}


def assert_answers_are_the_old_ones(logits: Tensor) -> None:
    torch.testing.assert_close(logits, torch.tensor(SAVED["logits"]), rtol=0, atol=1e-5)


def test_an_old_student_answers_alike_with_the_classes_of_today():
    classifier = load_classifier(STUDENT, "student")
    assert type(classifier.model).__module__ == "students.modeling"
    assert_answers_are_the_old_ones(classifier.model(**INPUTS).logits)


def test_an_old_student_answers_alike_with_the_code_saved_beside_it(tmp_path):
    folder = Path(shutil.copytree(STUDENT, tmp_path / "students" / "old"))
    for name, source in SAVED["code"].items():
        (folder / name).write_text(source)
    assert_answers_are_the_old_ones(logits_elsewhere(INPUTS, tmp_path)["old"])


def test_an_old_run_goes_on_where_it_was_killed_and_ends_as_it_would_have(tmp_path):
    folder = Path(shutil.copytree(DATA / "old_run", tmp_path / "old_run"))
    command = [str(ROOT / "pipelines" / "distill.py"), "--config", "config.yaml", "--run_dir", "run"]
    process = Warm(command, cwd=folder)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "75%" in errors  # the progress bar starts at step 12 of 16
    assert "teacher outputs" not in errors  # those on the disk are found by their name
    trained = [line.partition(":")[0] for line in output.splitlines() if " on validation; " in line]
    assert trained == ["logits", "baseline"]
    expected = load_file(STUDENT / "model.safetensors")
    for name, weights in load_file(folder / "run" / "student" / "model.safetensors").items():
        torch.testing.assert_close(weights, expected[name], rtol=0, atol=1e-4)
