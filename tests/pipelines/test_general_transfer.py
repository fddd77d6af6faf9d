"""An encoder linearised on raw text, and a task that starts from its student."""

import json
import shutil
from contextlib import redirect_stderr
from io import StringIO

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.in_process import call
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, BertConfig, BertModel

from distill.data.tokenization import train_tokenizer
from distill.evaluation.text_record import read_text_record
from pipelines.distill import main

STUDENT = ("--student.num_layers", 1, "--student.num_features", 8, "--student.features", "fixed")
QUICK = ("--trackers", "[]", "--training.mixed_precision", "no")


@pytest.fixture(autouse=True)
def no_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def sentences(tiny):
    """The train sentences of the tiny run."""
    (table,) = tiny.config.parent.rglob("train.jsonl")
    return pd.read_json(table, lines=True)["sentence"].tolist()


@pytest.fixture(scope="module")
def encoder(sentences, tmp_path_factory):
    """An encoder without any head."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer(sentences, 400)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.1, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def general(encoder, sentences, tmp_path_factory):
    """A finished run on raw text."""
    folder = tmp_path_factory.mktemp("general")
    (folder / "text.txt").write_text("\n".join(sentences))
    options = ("--config", "configs/general.yaml", "--data.dir", folder / "text.txt", "--run_dir", folder / "run")
    sizes = ("--teacher.checkpoint", encoder, "--data.max_length", 32, "--comparison.seconds_per_point", 0.05)
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(StringIO()) as shown:
        assert call(patch, main, *options, *sizes, *STUDENT, *QUICK) == 0
    assert "tokens/s" in shown.getvalue()
    assert "examples/s" not in shown.getvalue()
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder / "run"


def encoder_weights(model):
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("bert.encoder.")}


def test_the_encoder_stays_as_it_is_and_gets_a_head(encoder, general):
    before, after = BertModel.from_pretrained(encoder), AutoModelForMaskedLM.from_pretrained(general / "teacher")
    for name, tensor in encoder_weights(after).items():
        assert torch.equal(tensor, before.state_dict()[name.removeprefix("bert.")]), name
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(after.bert.state_dict()[words], before.state_dict()[words])
    head = after.cls.predictions.transform.dense.weight
    torch.manual_seed(0)
    assert (
        head - AutoModelForMaskedLM.from_pretrained(encoder).cls.predictions.transform.dense.weight
    ).abs().max() > 0
    assert read_text_record(general).models["student"].metrics["loss"] > 0


def task(patch, tiny, encoder, folder, *more):
    options = ("--config", tiny.config, "--teacher.checkpoint", encoder, "--teacher.freeze_word_embeddings", "true")
    return call(
        patch, main, *options, *STUDENT, "--student.softmax_layers", "[-1]", "--run_dir", folder, *QUICK, *more
    )


STAGES = [
    {"name": "depth", "attention": "softmax", "epochs": 1, "learning_rate": 1e-3, "losses": {"hidden_states": 1.0}},
    {
        "name": "transfer",
        "targets": "softmax_student",
        "inputs": "teacher",
        "epochs": 1,
        "learning_rate": 1e-3,
        "losses": {"attention_output": 1.0},
    },
    {
        "name": "logits",
        "targets": "softmax_student",
        "epochs": 1,
        "learning_rate": 1e-20,
        "losses": {"logits": 1.0},
    },
]


def test_a_task_starts_from_its_layers_and_leaves_out_what_made_them(
    monkeypatch, tiny, encoder, general, tmp_path, capsys
):
    folder, student = tmp_path / "run", general / "student"
    stages = ("--stages", json.dumps(STAGES))
    assert task(monkeypatch, tiny, encoder, folder, "--student.checkpoint", student, *stages) == 0
    shown = capsys.readouterr().out
    assert f"student: starts from {student}; stages that are left: logits" in shown
    assert not (folder / "checkpoints" / "depth").exists()
    own = AutoModelForSequenceClassification.from_pretrained(folder / "student")
    start = AutoModelForMaskedLM.from_pretrained(student)
    for name, tensor in encoder_weights(own).items():  # the one stage that is left hardly moves them
        torch.testing.assert_close(tensor, encoder_weights(start)[name], rtol=0, atol=1e-5)
    record = json.loads((folder / "record.json").read_text())
    assert [stage["name"] for stage in record["stages"]] == ["logits"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--student.num_features", 16), "has num_features 8, not 16; give --student.num_features to match"),
        (("--student.attention", "linear"), "has attention 'performer', not 'linear'"),
        (("--student.num_layers", 2), "has num_hidden_layers 1, not 2"),
        (("--student.attention", "fit"), "student.checkpoint has its mechanisms already"),
        (("--stages", json.dumps(STAGES[:1])), "every stage puts the mechanism into softmax ones; add one without"),
    ],
)
def test_a_student_of_other_settings_is_refused(monkeypatch, tiny, encoder, general, tmp_path, capsys, more, words):
    student = ("--student.checkpoint", general / "student")
    assert task(monkeypatch, tiny, encoder, tmp_path / "run", *student, *more) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_student_of_other_tokens_is_refused(monkeypatch, tiny, encoder, general, tmp_path, capsys):
    student = tmp_path / "student"
    shutil.copytree(general / "student", student)
    train_tokenizer(["some other words than those", "of the tiny run"], 60).save_pretrained(student)
    assert task(monkeypatch, tiny, encoder, tmp_path / "run", "--student.checkpoint", student) == 2
    assert (
        "reads other tokens than the teacher; give a student that was made of its encoder" in capsys.readouterr().err
    )


def test_passages_are_for_masked_text_alone(monkeypatch, tiny, encoder, tmp_path, capsys):
    assert task(monkeypatch, tiny, encoder, tmp_path / "run", "--data.passages", "true") == 2
    assert "data.passages is true: it goes only with task text" in capsys.readouterr().err
