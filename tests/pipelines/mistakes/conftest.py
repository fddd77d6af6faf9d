"""A folder in which everything is right, to be spoilt, and the command that must then refuse it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import BertConfig, BertForSequenceClassification, BertModel, MPNetConfig, MPNetModel

from distill.data.tokenization import train_tokenizer
from distill.utils.cli import run
from pipelines.distill import main

Place = Path
"""A folder made for one mistake, with ``data/sst2/{train,validation}.csv`` and ``teacher/`` in it, all in order."""


@pytest.fixture(scope="session")
def in_order(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a folder in which everything is right."""
    folder = tmp_path_factory.mktemp("in_order")
    texts = [f"{word} film number {number}" for number in range(20) for word in ("good", "bad")]
    frame = pandas.DataFrame({"sentence": texts, "label": [1, 0] * 20})
    (folder / "data" / "sst2").mkdir(parents=True)
    frame.to_csv(folder / "data" / "sst2" / "train.csv", index=False)
    frame.to_csv(folder / "data" / "sst2" / "validation.csv", index=False)
    tokenizer = train_tokenizer(texts, 200)
    size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    labels = {0: "negative", 1: "positive"}
    config = BertConfig(num_hidden_layers=2, id2label=labels, **size)
    BertForSequenceClassification(config).save_pretrained(folder / "teacher")
    BertModel(config).save_pretrained(folder / "encoder")
    three = BertConfig(num_hidden_layers=2, num_labels=3, **size)
    BertForSequenceClassification(three).save_pretrained(folder / "three_labels")
    MPNetModel(MPNetConfig(num_hidden_layers=1, **size)).save_pretrained(folder / "mpnet")
    for name in ("teacher", "encoder", "three_labels", "mpnet"):
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def place(in_order: Place, tmp_path: Path) -> Place:
    """Return a copy of the folder, to be spoilt."""
    return Path(shutil.copytree(in_order, tmp_path / "place"))


@pytest.fixture
def refused(
    tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """Return a function that runs the command, checks how it was refused and returns the message.

    What is refused once the data is read may have warnings about the data before it; ``warned`` leaves these out.
    """

    def command(*arguments: str, run_dir: Path | None = None, config: Path | None = None, warned: bool = False) -> str:
        folder = run_dir or tmp_path / "run"
        existed = os.path.exists(folder)  # False for a name that no file can have
        options = ["--config", str(config or tiny.config), "--run_dir", str(folder), *arguments]
        monkeypatch.setattr("sys.argv", ["pipelines/distill.py", *options])
        capsys.readouterr()  # what the test itself has saved may have said so
        with pytest.raises(SystemExit) as stopped:
            run(main)
        errors = capsys.readouterr().err
        assert stopped.value.code == 2, errors
        if warned:
            errors = "".join(f"{line}\n" for line in errors.splitlines() if not line.startswith("warning: data: "))
        assert errors.startswith("error: "), errors
        assert errors.count("\n") == 1, errors
        assert os.path.exists(folder) == existed, "a run folder was left behind"
        return errors

    return command


@pytest.fixture(autouse=True)
def no_accelerator() -> Iterator[None]:
    """Forget the process-wide state that the command leaves behind when it is called in this process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
