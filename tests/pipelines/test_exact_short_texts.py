"""A run whose recipe is chosen from the data, with a student that attends short texts exactly."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from distill.config.parsing import load_config
from distill.models.linear_form import linear_form
from students import exact_form

SETTINGS = ["--student.exact_up_to", "40", "--student.features", "learned", "--student.softmax_layers", "[-1]"]
SETTINGS += ["--student.num_layers", "2", "--teacher.scratch.num_layers", "3", "--baseline.epochs", "0.2"]
SETTINGS += ["--data.max_train_examples", "100", "--data.max_length", "128"]


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return the folder of a run through depth, depth_logits and fit, and what it printed."""
    folder = tmp_path_factory.mktemp("by_length") / "run"
    fit = "{name: fit, targets: exact_form, texts: packed, inputs: teacher, train: features, epochs: 0.5, "
    fit += "learning_rate: 1.0e-3, batch_size: 16, losses: {attention_output: 1.0}, last_layer: first_token}"
    depth = "{name: depth, attention: softmax, epochs: 1, learning_rate: 1.0e-3, losses: {hidden_states: 1.0}}"
    return folder, tiny.run(folder, *SETTINGS, "--stages", f"[{depth}, {fit}]")


def test_it_ends_well(finished) -> None:
    _, done = finished
    assert done.returncode == 0, done.stderr


def test_short_texts_are_answered_as_by_the_softmax_student_and_long_ones_are_not(finished) -> None:
    folder, _ = finished
    student = AutoModelForSequenceClassification.from_pretrained(folder / "student").eval()
    before = AutoModelForSequenceClassification.from_pretrained(folder / "checkpoints/depth/student").eval()
    assert student.config.exact_up_to == 40
    random = torch.Generator().manual_seed(0)
    for length, close in ((40, True), (41, False)):
        tokens = torch.randint(10, 60, (4, length), generator=random)
        with torch.no_grad():
            got, softmax = student(tokens).logits, before(tokens).logits
            exact = exact_form(student)(tokens).logits
        torch.testing.assert_close(exact, softmax)
        assert torch.equal(got, softmax) is close
        with linear_form(student), torch.no_grad():
            assert torch.equal(student(tokens).logits, got) is not close


def test_fitting_moves_the_mechanism_alone(finished) -> None:
    folder, _ = finished
    before = AutoModelForSequenceClassification.from_pretrained(folder / "checkpoints/depth/student").state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(folder / "student").state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    own = set(after) - set(before)
    assert {name.rpartition(".")[2] for name in own} == {"projection", "log_temperature"}


def test_the_record_holds_both_forms_and_names_the_student(finished) -> None:
    folder, _ = finished
    record = json.loads((folder / "record.json").read_text())
    assert record["models"]["student"]["attention"] == "performer, exact up to 40"
    linear = record["linear_form"]
    assert 0 <= linear["agreement"] <= 1
    assert set(linear["metrics"]) == set(record["models"]["student"]["metrics"])
    assert set(linear["retention"]["accuracy"]) >= {"value", "low", "high"}
    fit = record["stages"][-1]
    assert [layer["teacher_layer"] for layer in fit["fidelity"]] == [0, 1]
    assert record["environment"]["training_precision"] == "no"
    assert record["environment"]["instruction_set"]


def test_predictions_are_those_of_the_student_in_its_own_form(finished) -> None:
    folder, _ = finished
    logits = np.stack(pd.read_parquet(folder / "predictions.parquet")["student_logits"].to_list())
    assert np.isfinite(logits).all()


def test_a_recipe_from_the_data_is_written_down_and_goes_on(tiny, tmp_path: Path) -> None:
    automatic = ["--stages", "auto", "--data.max_train_examples", "60", "--student.attention", "lstm"]
    automatic += ["--student.num_features", "8", "--student.features", "fixed", "--baseline.epochs", "0"]
    folder = tmp_path / "run"
    done = tiny.run(folder, *automatic)
    assert done.returncode == 0, done.stderr
    stages = load_config(folder / "config.yaml").stages
    assert [stage.name for stage in stages] == ["logits"]
    assert stages[0].epochs > 10, "few examples, many epochs"
    assert "logits" in done.stdout
    assert "about" in done.stdout
    again = tiny.run(folder, *automatic)
    assert again.returncode == 0
    assert "is finished" in again.stdout


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["--student.attention", "fnet", "--student.exact_up_to", "64"], "fnet attention is no estimate of softmax"),
        (
            ["--student.attention", "softmax", "--student.exact_up_to", "64"],
            "softmax attention is exact in texts of every length; set student.exact_up_to 0",
        ),
        (["--student.exact_up_to", "-1"], "student.exact_up_to"),
        (["--stages", "auto", "--data.max_train_examples", "12"], "a recipe needs 16"),
    ],
)
def test_mistakes_are_one_line(tiny, tmp_path: Path, settings: list[str], named: str) -> None:
    done = tiny.run(tmp_path / "run", "--student.features", "fixed", "--student.num_features", "null", *settings)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1
