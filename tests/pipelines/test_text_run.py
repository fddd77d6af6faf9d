"""Task text to its end: a teacher, its student and a baseline, or one model alone; resumed, loaded, refused."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState
from helpers.in_process import call
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from distill.evaluation.text_record import read_text_record
from distill.preflight.memory_estimate import PREDICTIONS
from distill.training.loop import StageTrainer
from pipelines import compare, export, finetune_teacher
from pipelines.distill import main
from pipelines.run.text_comparison import loss_curve

WORDS = ["the cat sat on the mat", "a dog ate the bone", "the sun rose over the hill"]
QUICK = (
    *("--teacher.scratch.num_layers", 2, "--teacher.scratch.hidden_size", 16, "--teacher.scratch.num_heads", 2),
    *("--teacher.scratch.intermediate_size", 32, "--student.num_layers", 1, "--student.features", "fixed"),
    *("--data.max_length", 32, "--teacher.epochs", 1, "--teacher.batch_size", 8, "--baseline.batch_size", 8),
    *("--comparison.seconds_per_point", 0.05, "--trackers", "[]", "--training.mixed_precision", "no"),
    *("--baseline.epochs", 1),
)
STAGES = json.dumps(
    [
        {"name": "layers", "epochs": 1, "learning_rate": 1e-3, "batch_size": 8, "losses": {"hidden_states": 1.0}},
        {
            "name": "logits",
            "epochs": 1,
            "learning_rate": 1e-3,
            "batch_size": 8,
            "losses": {"logits": 0.5, "labels": 0.5},
        },
    ]
)


@pytest.fixture(autouse=True)
def no_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    generator = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("text") / "book.txt"
    file.write_text("".join(f"{WORDS[index]} .\n" for index in generator.integers(3, size=600)))
    return file


def run(monkeypatch, text, folder, *more):
    options = ("--config", "configs/text.yaml", "--data.dir", text, "--run_dir", folder, *QUICK)
    return call(monkeypatch, main, *options, *more)


def models_of(folder):
    return read_text_record(folder).models


@pytest.mark.parametrize(("kind", "auto"), [("causal", AutoModelForCausalLM), ("masked", AutoModelForMaskedLM)])
def test_a_run_leaves_what_its_report_speaks_of(monkeypatch, text, tmp_path, capsys, kind, auto):
    folder = tmp_path / "run"
    more = ("--model", kind, "--student.attention", "linear", "--stages", STAGES)
    assert run(monkeypatch, text, folder, *more) == 0
    shown = capsys.readouterr().out
    record = read_text_record(folder)
    assert record.models["student"].layers == 1
    assert record.models["teacher"].attention == "softmax"
    assert set(record.retention) == {"loss", "perplexity", "bits_per_character"}
    teacher, student = (record.models[role].metrics["loss"] for role in ("teacher", "student"))
    assert record.retention["loss"].value == pytest.approx(teacher / student)
    assert [stage.name for stage in record.stages] == ["layers", "logits"]
    assert record.stages[0].fidelity
    assert {step.model for step in record.steps} == {"teacher", "student"}
    assert all(step.activation_megabytes > 0 for step in record.steps)
    frame = pd.read_parquet(folder / "predictions.parquet")
    assert frame["student_loss"].sum() / frame["tokens"].sum() == pytest.approx(student)
    assert "bits" in shown
    assert (folder / "report.html").exists()
    assert (folder / "plots" / "curves.png").exists()
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    read = tokenizer("the cat", return_tensors="pt")
    model = auto.from_pretrained(folder / "student")
    assert model(read["input_ids"]).logits.shape == (*read["input_ids"].shape, len(tokenizer))
    if kind == "causal":
        assert read["input_ids"].shape == (1, 7)
        assert model.generate(**read, max_new_tokens=3, pad_token_id=0).shape == (1, 10)
    assert "student" in (folder / "student" / "README.md").read_text()
    again = (folder / "record.json").read_bytes()
    assert run(monkeypatch, text, folder, *more) == 0
    assert "is finished" in capsys.readouterr().out
    assert (folder / "record.json").read_bytes() == again


def test_one_model_alone_has_no_teacher(monkeypatch, text, tmp_path):
    folder = tmp_path / "run"
    alone = ("--teacher.epochs", 0, "--data.text_unit", "word", "--student.attention", "lion", "--baseline.epochs", 8)
    assert run(monkeypatch, text, folder, *alone) == 0
    record = read_text_record(folder)
    assert record.main_metric == "perplexity"
    assert record.models["teacher"].metrics is None
    assert record.models["teacher"].reason
    assert not record.retention
    assert record.models["student"].metrics["loss"] < record.unigram_loss
    assert record.curves["student"].tokens[-1] == 8 * record.train_tokens
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    ids = tokenizer("the cat", return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0).shape == (1, 7)


@pytest.mark.parametrize(("kind", "passes", "second"), [("causal", 1, 60), ("masked", 2, 20)])
def test_an_interrupted_run_ends_as_one_that_was_not(monkeypatch, text, tmp_path, kind, passes, second):
    more = ("--student.attention", "linear", "--stages", STAGES, "--model", kind, "--teacher.epochs", passes)
    assert run(monkeypatch, text, tmp_path / "whole", *more) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    taken, read = 0, set()
    take = StageTrainer.train_step

    def stop(trainer, indices):
        nonlocal taken
        take(trainer, indices)
        taken += 1
        read.add((trainer.stage.name, trainer.progress.epoch, trainer.stepper.examples.pass_number))
        if taken in (5, second):  # in the teacher's training, and in its second pass or in a stage
            trainer.signals.received = 15

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "train_step", stop)
        for _ in range(2):
            assert run(patch, text, tmp_path / "stopped", *more) == 128 + 15
            AcceleratorState._reset_state(reset_partial_state=True)
    assert run(monkeypatch, text, tmp_path / "stopped", *more) == 0
    for name in ("teacher", "student", "baseline"):
        files = [(tmp_path / each / name / "model.safetensors").read_bytes() for each in ("whole", "stopped")]
        assert files[0] == files[1]
    assert models_of(tmp_path / "whole") == models_of(tmp_path / "stopped")
    assert any(number == 1 if passes == 2 else name != "teacher" for name, number, _ in read)
    assert all(number == masks for _, number, masks in read), "every pass has masks of its own"


def test_a_finished_model_is_a_teacher_of_its_own_tokens(monkeypatch, text, tmp_path, capsys):
    assert run(monkeypatch, text, tmp_path / "first", "--student.attention", "linear", "--stages", STAGES) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    teacher = ("--teacher.checkpoint", tmp_path / "first" / "teacher")
    assert (
        run(monkeypatch, text, tmp_path / "second", "--student.attention", "softmax", "--stages", STAGES, *teacher)
        == 0
    )
    first, second = (models_of(tmp_path / name)["teacher"] for name in ("first", "second"))
    assert first.metrics == second.metrics
    AcceleratorState._reset_state(reset_partial_state=True)
    capsys.readouterr()
    assert (
        run(
            monkeypatch,
            text,
            tmp_path / "third",
            "--data.text_unit",
            "word",
            *teacher,
            "--student.attention",
            "linear",
        )
        == 2
    )
    assert "reads bytes; leave data.text_unit out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--data.max_length", 4096), "fewer than one sequence of data.max_length 4096"),
        (("--student.attention", "fnet"), "student.attention is 'fnet'"),
        (("--student.num_layers", 5), "student.num_layers"),
        (("--teacher.checkpoint", "no-such-folder/x"), "teacher.checkpoint no-such-folder/x"),
        (("--model", "null"), "choose one of causal, masked"),
        (("--student.layer_map", "importance"), "student.layer_map is 'importance'"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_no_folder(monkeypatch, text, tmp_path, capsys, more, said):
    assert run(monkeypatch, text, tmp_path / "run", *more) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_masked_stage_is_shared_by_runs_that_mask_alike(monkeypatch, text, tmp_path, capsys):
    softmax = json.dumps([json.loads(STAGES)[0] | {"attention": "softmax"}, json.loads(STAGES)[1]])
    more = ["--model", "masked", "--stages", softmax, "--cache.dir", tmp_path / "cache", "--baseline.epochs", 0]
    assert run(monkeypatch, text, tmp_path / "first", *more) == 0
    more += ["--teacher.checkpoint", tmp_path / "first" / "teacher"]
    for name, seed in (("second", 0), ("third", 1)):
        AcceleratorState._reset_state(reset_partial_state=True)
        capsys.readouterr()
        assert run(monkeypatch, text, tmp_path / name, *more, "--data.seed", seed) == 0
        is_taken = "layers: taken from" in capsys.readouterr().out
        assert is_taken == (seed == 0), name


def test_a_disk_without_room_is_said_at_the_start(monkeypatch, text, tmp_path, capsys):
    monkeypatch.setattr("distill.preflight.resources.shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert run(monkeypatch, text, tmp_path / "run") == 2
    assert "disk: needs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_curve_counts_what_was_read_and_means_what_lies_between():
    history = [
        {"step": step, "labels": float(step)} for step in range(1, 8)
    ]  # 3 steps an epoch, the last of 2 windows
    curve = loss_curve(history, rows=10, batch_size=4, length=100)
    assert curve.tokens == (400, 800, 1000, 1400, 1800, 2000, 2400)
    assert curve.loss == (1, 2, 3, 4, 5, 6, 7)
    many = [{"step": step, "labels": 1.0 + step % 2} for step in range(1, 402)]
    thin = loss_curve(many, rows=1000, batch_size=1, length=1)
    assert len(thin.tokens) <= 200
    assert thin.tokens[-1] == 401
    assert thin.loss[0] == pytest.approx(4 / 3 + 1 / 3, abs=0.2)


def test_a_causal_folder_is_no_classifier(monkeypatch, text, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(monkeypatch, text, folder, "--teacher.epochs", 0, "--student.attention", "linear") == 0
    capsys.readouterr()
    for command, options in (
        (export.main, ("--student", folder / "student", "--output", tmp_path / "x.onnx")),
        (compare.main, ("--teacher", folder / "student", "--student", folder / "student", "--task", "sst2")),
        (finetune_teacher.main, ("--config", "configs/text.yaml", "--data.dir", text, "--teacher.epochs", 0)),
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
        assert call(monkeypatch, command, *options) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        assert "language model" in errors or "no teacher" in errors


def test_predictions_that_find_no_room_are_said_before_a_run_begins(monkeypatch, text, tmp_path, capsys):
    """Of a large vocabulary they take more than all layers; here an array of them is made as large as that."""
    monkeypatch.setitem(PREDICTIONS, "labels", 10**9)
    asked = ("--student.attention", "linear", "--stages", STAGES, "--check")
    assert run(monkeypatch, text, tmp_path / "run", *asked) == 0
    assert re.search(r"warning +memory: logits needs", capsys.readouterr().out)
