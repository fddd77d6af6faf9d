"""Texts longer than the teacher's positions: it reads them in windows, the student at once."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from helpers import warm
from transformers import BertConfig, BertForSequenceClassification

from distill.data.tokenization import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
POSITIONS, LENGTH = 24, 60


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder with data of one's own and an untrained teacher of few positions."""
    folder = tmp_path_factory.mktemp("long")
    words = np.array(["good", "bad", "film", "plot", "actor", "dull", "bright", "slow", "end", "start"])
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, size)) for size in generator.integers(5, 50, 80)]
    frame = pandas.DataFrame({"text": texts, "label": ["yes", "no"] * 40})
    (folder / "data" / "custom").mkdir(parents=True)
    for split in ("train", "validation"):
        frame.to_csv(folder / "data" / "custom" / f"{split}.csv", index=False)
    tokenizer = train_tokenizer(texts, 200)
    size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
    torch.manual_seed(0)
    labels = {0: "no", 1: "yes"}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, id2label=labels, **size)
    BertForSequenceClassification(config).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def options(place) -> list[str]:
    data = ["--task", "custom", "--data.dir", str(place / "data"), "--data.text_columns", "[text]"]
    rest = ["--teacher.checkpoint", str(place / "teacher"), "--data.max_length", str(LENGTH), "--baseline.epochs", "0"]
    speed = ["--comparison.lengths", "[16, 48]", "--comparison.batch_sizes", "[1]", "--comparison.memory", "true"]
    return [*data, *rest, *speed]


@pytest.fixture(scope="module")
def done(tiny, options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "long"
    process = tiny.run(folder, *options)
    assert process.returncode == 0, process.stderr
    return folder, process.stdout


def test_the_record_says_what_was_read_in_windows(done):
    folder, output = done
    assert (
        f"teacher: reads texts of more than {POSITIONS} tokens in windows; the student reads up to {LENGTH}" in output
    )
    record = json.loads((folder / "record.json").read_text())
    windows = record["models"]["teacher"]["windows"]
    assert windows["tokens"] == POSITIONS
    assert 0.3 < windows["share_of_texts"] < 0.9
    short, long = record["speed"]
    assert (short["teacher_windows"], short["speed_only"]) == (1, False)
    assert (long["teacher_windows"], long["speed_only"]) == (3, False)
    assert all(point["teacher_mb"] is not None for point in record["memory"])
    assert f"in windows of {POSITIONS} tokens" in (folder / "report.md").read_text()


def test_the_student_has_a_position_for_every_token(done):
    config = json.loads((done[0] / "student" / "config.json").read_text())
    assert config["max_position_embeddings"] == 64  # batches are padded to multiples of 8


def test_a_comparison_without_the_run_folder_gives_the_same_metrics(done, place, tmp_path):
    folder = done[0]
    command = [str(ROOT / "pipelines" / "compare.py"), "--task", "custom", "--output", str(tmp_path)]
    models = ["--teacher", str(place / "teacher"), "--student", str(folder / "student")]
    data = ["--data.dir", str(place / "data"), "--data.text_columns", "text", "--data.max_length", str(LENGTH)]
    quick = ["--lengths", "16", "--batch-sizes", "1", "--seconds-per-point", "0.05"]
    process = warm.run([*command, *models, *data, *quick])
    assert process.returncode == 0, process.stderr
    ours, theirs = (json.loads((each / "record.json").read_text())["models"] for each in (folder, tmp_path))
    for role in ("teacher", "student"):
        assert ours[role]["metrics"] == theirs[role]["metrics"]
    assert ours["teacher"]["windows"] == theirs["teacher"]["windows"]
