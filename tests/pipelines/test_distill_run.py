"""The whole pipeline on a tiny configuration: what it prints, what it leaves, and what it does when run again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.evaluation.record import parse_record, read_record
from distill.utils.files import is_leftover

FILES = {"config.yaml", "record.json", "report.md", "report.html", "predictions.parquet"}
FOLDERS = {"plots", "teacher", "student", "baseline", "checkpoints", "tensorboard"}


def test_exactly_the_promised_files_are_left(finished) -> None:
    assert {path.name for path in finished.folder.iterdir() if path.is_file()} == FILES
    assert {path.name for path in finished.folder.iterdir() if path.is_dir()} == FOLDERS
    assert {path.suffix for path in (finished.folder / "plots").iterdir()} == {".png"}
    for name in ("teacher", "student", "baseline"):
        left = {path.name for path in (finished.folder / name).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= left
    assert (finished.folder / "student" / "README.md").read_text().startswith("---\n")
    unfinished = [path for path in finished.folder.rglob("*") if is_leftover(path)]
    assert unfinished == []


def test_step_checkpoints_and_teacher_outputs_are_gone(finished) -> None:
    left = {path.name for path in (finished.folder / "checkpoints").iterdir()}
    assert left == {"inputs.json", "teacher", "layers", "logits", "baseline"}
    assert list((finished.folder / "checkpoints").glob("*/step-*")) == []


def test_what_is_passed_on_names_no_folder_of_this_machine_and_no_secret(finished) -> None:
    """Of the files of a run, only the configuration and TensorBoard's copy of it hold paths."""
    private = [b"token-that-nobody-may-see", os.fsencode(finished.folder.parent), os.fsencode(Path.home())]
    for path in finished.folder.rglob("*"):
        own = path.name == "config.yaml" or "tensorboard" in path.parts
        if path.is_file():
            content = path.read_bytes()
            assert private[0] not in content, path
            assert own or not any(part in content for part in private[1:]), path


def test_teacher_score_is_printed_before_the_stages(finished) -> None:
    lines = [line for line in finished.output.splitlines() if " on validation" in line]
    assert [line.partition(":")[0] for line in lines] == ["teacher", "layers", "logits", "baseline"]
    assert "accuracy" in lines[0]
    assert f"report: {finished.folder / 'report.html'}" in finished.output.splitlines()[-1]


def test_what_is_copied_is_told_of_each_model_once(finished) -> None:
    copied = [line.partition(":")[0] for line in finished.output.splitlines() if " tensors copied" in line]
    assert copied == ["student", "baseline"]


def test_record_has_the_promised_keys(finished) -> None:
    record = json.loads((finished.folder / "record.json").read_text())
    parse_record(record)
    assert (record["task"], record["split"], record["main_metric"]) == ("sst2", "validation", "accuracy")
    assert record["seed"] == 42
    assert set(record["models"]) == {"teacher", "student", "baseline"}
    for model in record["models"].values():
        assert {"metrics", "parameters", "layers", "attention", "flops"} <= set(model)
    assert {"value", "low", "high"} <= set(record["retention"]["accuracy"])
    assert [(point["batch_size"], point["length"]) for point in record["speed"]] == [(2, 16)]
    assert [stage["name"] for stage in record["stages"]] == ["layers", "logits"]
    for stage in record["stages"]:
        assert {"name", "seconds", "checkpoint_seconds", "examples_per_second", "metrics", "fidelity"} <= set(stage)
        assert stage["seconds"] > 0
        assert stage["checkpoint_seconds"] > 0
    for key in ("agreement", "memory", "crossover_length", "environment", "num_examples", "schema"):
        assert key in record


def test_resolved_configuration_is_kept(finished) -> None:
    config = yaml.safe_load((finished.folder / "config.yaml").read_text())
    assert config["student"]["num_layers"] == 1
    assert config["baseline"]["learning_rate"] > 0  # a default, which the file does not name


def test_predictions_hold_every_example_once(finished) -> None:
    predictions = pandas.read_parquet(finished.folder / "predictions.parquet")
    assert list(predictions.columns) == [
        "id",
        "split",
        "label",
        "teacher_logits",
        "student_logits",
        "baseline_logits",
    ]
    assert predictions["id"].tolist() == list(range(200))
    logits = {role: np.stack(predictions[f"{role}_logits"].to_list()) for role in ("teacher", "student", "baseline")}
    for role, values in logits.items():
        assert values.shape == (200, 2)
        record = json.loads((finished.folder / "record.json").read_text())
        accuracy = (values.argmax(1) == predictions["label"]).mean()
        assert record["models"][role]["metrics"]["accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert not np.array_equal(logits["student"], logits["baseline"])


def test_tensorboard_holds_every_promised_figure(finished) -> None:
    events = EventAccumulator(str(finished.folder / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    losses = {"teacher": ["labels"], "layers": ["attention_output", "hidden_states"], "logits": ["logits", "labels"]}
    for stage, names in (losses | {"baseline": ["labels"]}).items():
        for name in names:
            assert {f"{stage}/{name}", f"{stage}/{name}_weighted"} <= tags
        assert {f"{stage}/learning_rate", f"{stage}/examples_per_second", f"{stage}/held_out_accuracy"} <= tags
    for stage in ("layers", "logits"):
        assert f"{stage}/validation_accuracy" in tags
        assert {f"{stage}/fidelity_attention_output/layer_0", f"{stage}/fidelity_hidden_states/layer_0"} <= tags
    pictures = {path.stem for path in (finished.folder / "plots").glob("*.png")}
    assert "retention_speedup" in pictures
    assert pictures <= set(events.Tags()["images"])
    steps = [event.step for event in events.Scalars("layers/hidden_states")]
    assert steps == [2, 4, 6, 8]
    raw, weighted = (events.Scalars(f"layers/hidden_states{suffix}")[-1].value for suffix in ("", "_weighted"))
    assert weighted == pytest.approx(0.5 * raw)
    hparams = yaml.safe_load(next((finished.folder / "tensorboard").glob("*/hparams.yml")).read_text())
    assert hparams["student.attention"] == "performer"


def test_baseline_is_not_the_student_and_the_teacher_was_trained(finished) -> None:
    student, baseline = (load_file(finished.folder / name / "model.safetensors") for name in ("student", "baseline"))
    assert set(student) == set(baseline)
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not student[name].equal(baseline[name])


LOAD_ELSEWHERE = """
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder = sys.argv[1]
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    logits = model(**tokenizer(["a fine film", "no"], padding=True, return_tensors="pt")).logits
assert logits.shape == (2, 2) and logits.isfinite().all()
assert not any(name.split(".")[0] in ("students", "distill") for name in sys.modules)
print(type(model).__name__)
"""


def test_student_loads_from_any_directory_without_this_repository(finished, tmp_path: Path) -> None:
    copied = shutil.copytree(finished.folder / "student", tmp_path / "somewhere" / "else")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD_ELSEWHERE, str(copied)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "StudentForSequenceClassification"


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of everything in a folder."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {str(path): (state.st_size, state.st_mtime_ns) for path, state in found.items()}


def test_a_finished_run_says_so_and_changes_nothing(finished, tiny) -> None:
    before = states(finished.folder)
    done = tiny.run(finished.folder)
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stdout
    assert str(finished.folder / "report.html") in done.stdout
    assert states(finished.folder) == before


def test_another_configuration_is_refused_in_the_same_folder(finished, tiny) -> None:
    before = states(finished.folder)
    done = tiny.run(finished.folder, "--seed", "7")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "different: seed" in done.stderr
    assert states(finished.folder) == before


@pytest.fixture(scope="module")
def bare(finished, tiny, tmp_path_factory):
    """A run without baseline and trackers, whose student cannot be pushed: the Hub is out of reach."""
    folder = tmp_path_factory.mktemp("bare") / "run"
    more = ("--teacher.checkpoint", str(finished.folder / "teacher"), "--comparison.lengths", "[]")
    options = ("--baseline.epochs", "0", "--trackers", "[]", "--hub.repo", "me/reviews", *more)
    done = tiny.run(folder, *options)
    assert done.returncode == 0, done.stderr
    return folder, done, options


def test_a_baseline_of_no_epochs_is_none(bare) -> None:
    folder, done, _ = bare
    record = read_record(folder / "record.json")
    assert record.models.baseline.metrics is None
    assert record.models.baseline.reason
    assert record.speed == ()
    assert not (folder / "baseline").exists()
    assert "labels alone" not in done.stdout


def test_a_hub_out_of_reach_is_said_at_both_ends_and_the_result_is_here(bare, tiny) -> None:
    """The same command would push it later; a look alone does not try."""
    folder, done, options = bare
    assert not (folder / "tensorboard").exists()
    early, late = [line for line in done.stderr.splitlines() if "hub.repo" in line]
    assert early == (
        "warning: hub.repo: HF_HUB_OFFLINE is set, nothing will go to me/reviews; unset it, or push the finished run "
        "later by the same command"
    )
    assert late.startswith("warning: hub.repo me/reviews: not pushed: HF_HUB_OFFLINE is set. The result is whole in")
    assert f"hf upload me/reviews {folder / 'student'} . && " in late
    again, look = tiny.run(folder, *options), tiny.run(folder, *options, "--check")
    assert (again.returncode, look.returncode) == (0, 0)
    assert late in again.stderr.splitlines()
    assert "not pushed" not in look.stderr + look.stdout


def test_copies_are_read_by_the_stages_and_not_by_the_baseline(finished, tiny, tmp_path) -> None:
    folder = tmp_path / "run"
    more = ("--teacher.checkpoint", str(finished.folder / "teacher"), "--comparison.lengths", "[]")
    done = tiny.run(folder, "--augmentation.copies", "2", "--augmentation.kinds", "[replace, mix]", *more)
    assert done.returncode == 0, done.stderr
    steps = {}
    for run in (finished.folder, folder):
        for phase in ("layers", "logits", "baseline"):
            history = json.loads((run / "checkpoints" / phase / "result.json").read_text())["history"]
            steps.setdefault(phase, []).append(history[-1]["step"])
    assert steps == {"layers": [8, 23], "logits": [16, 46], "baseline": [8, 8]}  # of 240 and 720 in batches of 32


def test_texts_of_other_tasks_are_read_by_the_stages_and_their_number_is_the_baselines(
    finished, tiny, tmp_path
) -> None:
    folder = tmp_path / "run"
    more = ("--teacher.checkpoint", str(finished.folder / "teacher"), "--comparison.lengths", "[]")
    more += ("--data.dir", "embedded")  # which has the other tasks
    done = tiny.run(folder, "--augmentation.tasks", "[cola, mrpc]", "--baseline.epochs", "null", *more)
    assert done.returncode == 0, done.stderr
    steps = {}
    for phase in ("layers", "logits", "baseline"):
        steps[phase] = json.loads((folder / "checkpoints" / phase / "result.json").read_text())["history"][-1]["step"]
    # 240 texts of its own and 300 of each other task, one and two epochs in batches of 32: 2,520 texts, ten times 240.
    assert steps == {"layers": 27, "logits": 54, "baseline": 80}


def test_the_layers_that_the_teacher_needs_most_are_chosen_once_it_is_trained(tiny, tmp_path) -> None:
    folder = tmp_path / "run"
    more = ("--student.layer_map", "importance", "--baseline.epochs", "0", "--comparison.lengths", "[]")
    done = tiny.run(folder, *more)
    assert done.returncode == 0, done.stderr
    chosen = json.loads((folder / "student" / "config.json").read_text())["layer_map"]
    assert chosen in ([0], [1])
    assert f"student: starts from layers {chosen} of the teacher" in done.stdout
    assert [layer.teacher_layer for layer in read_record(folder / "record.json").stages[0].fidelity] == chosen
