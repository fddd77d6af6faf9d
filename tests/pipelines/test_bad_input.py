"""Mistakes that people make: one line on stderr, exit code 2, and nothing left that would be in the way."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
)

from distill.console import run
from distill.tokenizer import train_tokenizer
from pipelines import finetune_teacher
from pipelines.distill import main

Place = Path
"""A folder made for one mistake, with ``data/sst2/{train,validation}.csv`` and ``teacher/`` in it, all in order."""


@pytest.fixture(scope="module")
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
    other = DistilBertConfig(n_layers=1, dim=16, n_heads=2, hidden_dim=32, vocab_size=len(tokenizer))
    DistilBertModel(other).save_pretrained(folder / "distilbert")
    for name in ("teacher", "encoder", "three_labels", "distilbert"):
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def place(in_order: Place, tmp_path: Path) -> Place:
    """Return a copy of the folder, to be spoilt."""
    return Path(shutil.copytree(in_order, tmp_path / "place"))


@pytest.fixture(autouse=True)
def no_accelerator() -> Iterator[None]:
    """Forget the process-wide state that the command leaves behind when it is called in this process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def refused(
    tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """Return a function that runs the command, checks how it was refused and returns the message."""

    def command(*arguments: str, run_dir: Path | None = None, config: Path | None = None) -> str:
        folder = run_dir or tmp_path / "run"
        existed = folder.exists()
        options = ["--config", str(config or tiny.config), "--run_dir", str(folder), *arguments]
        monkeypatch.setattr("sys.argv", ["pipelines/distill.py", *options])
        with pytest.raises(SystemExit) as stopped:
            run(main)
        errors = capsys.readouterr().err
        assert stopped.value.code == 2, errors
        assert errors.startswith("error: "), errors
        assert errors.count("\n") == 1, errors
        assert folder.exists() == existed, "a run folder was left behind"
        return errors

    return command


def write_train(place: Place, frame: pandas.DataFrame | str | bytes) -> None:
    """Replace the train file."""
    path = place / "data" / "sst2" / "train.csv"
    if isinstance(frame, pandas.DataFrame):
        frame.to_csv(path, index=False)
    else:
        path.write_bytes(frame.encode() if isinstance(frame, str) else frame)


CONFIGURATION: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "unknown key": (["--student.num_lyers", "2"], ("student.num_lyers", "did you mean 'student.num_layers'")),
    "shortened key": (["--student.num_layer", "2"], ("student.num_layer", "did you mean 'student.num_layers'")),
    "unknown section": (["--studnet.num_layers", "2"], ("studnet.num_layers", "student.num_layers")),
    "wrong type": (["--student.num_layers", "two"], ("student.num_layers", "two")),
    "unknown task": (["--task", "sst3"], ("sst3", "did you mean 'sst2'")),
    "unknown attention": (["--student.attention", "perfomer"], ("perfomer", "did you mean 'performer'")),
    "no layers": (["--student.num_layers", "0"], ("student.num_layers is 0",)),
    "layer map of another length": (["--student.layer_map", "[0, 1]"], ("student.layer_map", "num_layers = 1")),
    "more layers than the teacher": (["--student.num_layers", "3"], ("student.num_layers", "3", "2")),
    "layer beyond the teacher": (["--student.layer_map", "[7]"], ("layer_map", "7")),
    "too short texts": (["--data.max_length", "2"], ("data.max_length is 2", "8")),
    "no stages": (["--stages", "[]"], ("stages", "at least one")),
    "unknown loss": (
        ["--stages", "[{name: a, epochs: 1, learning_rate: 1e-3, losses: {logit: 1}}]"],
        ("stages.a.losses", "did you mean 'logits'"),
    ),
    "unknown key of a stage": (
        ["--stages", "[{name: a, epoch: 1, learning_rate: 1e-3, losses: {logits: 1}}]"],
        ("stages.epoch", "epochs"),
    ),
    "two stages of one name": (
        [
            "--stages",
            "[{name: a, epochs: 1, learning_rate: 1e-3, losses: {logits: 1}},"
            " {name: a, epochs: 1, learning_rate: 1e-3, losses: {logits: 1}}]",
        ],
        ("stages", "name of its own"),
    ),
    "negative learning rate": (["--teacher.learning_rate", "-1"], ("teacher.learning_rate is -1",)),
    "heads that do not divide": (["--teacher.scratch.num_heads", "3"], ("num_heads is 3", "hidden_size 32")),
    "odd held-out share": (["--data.held_out_fraction", "0.9"], ("data.held_out_fraction is 0.9",)),
    "custom without a folder": (["--task", "custom", "--data.dir", "null"], ("data.dir", "custom")),
    "custom without columns": (["--task", "custom", "--data.dir", "."], ("data.text_columns", "one or two")),
    "columns without custom": (["--data.text_columns", "[a]"], ("custom",)),
    "custom columns for an embedded task": (["--task", "imdb"], ("imdb", "embedded")),
    "missing data folder": (["--data.dir", "/no/such/folder"], ("data.dir", "/no/such/folder")),
    "no such checkpoint": (["--teacher.checkpoint", "/no/such/teacher"], ("teacher.checkpoint", "/no/such/teacher")),
    "half precision without a GPU": (["--training.mixed_precision", "fp16"], ("fp16", "GPU", "bf16")),
    "unknown precision": (["--training.mixed_precision", "fp8"], ("training.mixed_precision", "bf16")),
}


@pytest.mark.parametrize("name", CONFIGURATION)
def test_configuration(name: str, refused: Callable[..., str]) -> None:
    arguments, expected = CONFIGURATION[name]
    message = refused(*arguments)
    for part in expected:
        assert part in message, message


def test_missing_configuration_file(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "nowhere.yaml" in refused(config=tmp_path / "nowhere.yaml")


def test_configuration_that_is_not_yaml(refused: Callable[..., str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("task: [sst2")
    assert "broken.yaml" in refused(config=broken)


def test_configuration_without_a_task(refused: Callable[..., str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("seed: 1\n")
    assert "missing key" in refused(config=empty)


DATA: dict[str, tuple[pandas.DataFrame | str | bytes, tuple[str, ...]]] = {
    "missing column": (pandas.DataFrame({"text": ["a"], "label": [0]}), ("no column 'sentence'", "text, label")),
    "empty file": ("", ("train.csv is empty",)),
    "header alone": ("sentence,label\n", ("train.csv is empty",)),
    "label outside the range": (pandas.DataFrame({"sentence": ["a", "b"], "label": [0, 2]}), ("row 2", "label 2")),
    "hidden labels": (pandas.DataFrame({"sentence": ["a", "b"], "label": [-1, -1]}), ("every label is -1",)),
    "label that is a fraction": (pandas.DataFrame({"sentence": ["a", "b"], "label": [0, 0.5]}), ("row 2", "0.5")),
    "label that is a word": (pandas.DataFrame({"sentence": ["a", "b"], "label": ["0", "yes"]}), ("row 2", "yes")),
    "label that is missing": ("sentence,label\na,1\nb,\n", ("row 2", "missing")),
    "not UTF-8": ("sentence,label\nsch\xf6n,1\n".encode("latin-1"), ("not UTF-8",)),
    "unquoted commas": ("sentence,label\na, b, c,1\n", ("train.csv",)),
    "one row": ("sentence,label\na,1\n", ("1 usable row",)),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, refused: Callable[..., str], place: Place) -> None:
    content, expected = DATA[name]
    write_train(place, content)
    message = refused("--data.dir", str(place / "data"))
    for part in expected:
        assert part in message, message


def test_text_that_is_not_a_string(refused: Callable[..., str], place: Place) -> None:
    (place / "data" / "sst2" / "train.csv").unlink()
    lines = [json.dumps({"sentence": text, "label": 1}) for text in (7, 8)]
    (place / "data" / "sst2" / "train.jsonl").write_text("\n".join(lines))
    assert "'sentence' holds int64 values, not text" in refused("--data.dir", str(place / "data"))


def test_torn_parquet(refused: Callable[..., str], place: Place) -> None:
    (place / "data" / "sst2" / "train.csv").unlink()
    pandas.DataFrame({"sentence": ["a"] * 99, "label": [1] * 99}).to_parquet(place / "data" / "sst2" / "train.parquet")
    content = (place / "data" / "sst2" / "train.parquet").read_bytes()
    (place / "data" / "sst2" / "train.parquet").write_bytes(content[:-20])
    assert "train.parquet" in refused("--data.dir", str(place / "data"))


def test_missing_validation_file(refused: Callable[..., str], place: Place) -> None:
    (place / "data" / "sst2" / "validation.csv").unlink()
    assert "no validation." in refused("--data.dir", str(place / "data"))


def test_folder_of_another_task(refused: Callable[..., str], place: Place) -> None:
    assert "cola/train." in refused("--data.dir", str(place / "data"), "--task", "cola")


def truncate(path: Path) -> None:
    """Cut the second half off a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_weight(folder: Path) -> None:
    """Take one layer's weight out of a checkpoint."""
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def remove_tokenizer(folder: Path) -> None:
    """Leave weights and configuration alone."""
    for path in folder.glob("tokenizer*"):
        path.unlink()


def larger_tokenizer(folder: Path) -> None:
    """Put a tokenizer with more entries than the model has embeddings beside the weights."""
    texts = [f"word{number} {number * 7919}" for number in range(3000)]
    train_tokenizer(texts, 3000).save_pretrained(folder)


def not_finite(folder: Path) -> None:
    """Make every output of a classifier NaN."""
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def nothing(folder: Path) -> None:
    """Leave a checkpoint as it is."""


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "not a BERT": ("distilbert", nothing, ("distilbert", "not a BERT")),
    "torn weights": ("teacher", lambda folder: truncate(folder / "model.safetensors"), ("weights",)),
    "torn weights of an encoder": ("encoder", lambda folder: truncate(folder / "model.safetensors"), ("weights",)),
    "torn configuration": ("teacher", lambda folder: truncate(folder / "config.json"), ("teacher.checkpoint",)),
    "no weights": ("teacher", lambda folder: (folder / "model.safetensors").unlink(), ("weights",)),
    "a weight is missing": ("teacher", drop_weight, ("torn", "layer.1.output.dense.weight")),
    "no tokenizer": ("teacher", remove_tokenizer, ("tokenizer",)),
    "another tokenizer": ("teacher", larger_tokenizer, ("tokenizer", "model knows")),
    "another number of labels": ("three_labels", nothing, ("3 labels", "sst2")),
    "outputs that are not finite": ("teacher", not_finite, ("not finite",)),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint(name: str, refused: Callable[..., str], place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, spoil, expected = CHECKPOINTS[name]
    spoil(place / checkpoint)
    message = refused("--data.dir", str(place / "data"), "--teacher.checkpoint", str(place / checkpoint))
    for part in expected:
        assert part in message, message


def test_finished_teacher_below_the_floor(refused: Callable[..., str], place: Place) -> None:
    options = ("--data.dir", str(place / "data"), "--teacher.checkpoint", str(place / "teacher"))
    assert "below the floor" in refused(*options, "--teacher.margin_over_majority", "0.6")


def test_finished_teacher_of_another_label_order(refused: Callable[..., str], place: Place) -> None:
    """A teacher that answers half of the texts with either class, and always the other one than the label."""
    model = BertForSequenceClassification.from_pretrained(place / "teacher").eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "teacher")
    texts = [f"{word} film number {number}" for number in range(20) for word in ("good", "bad")]
    with torch.no_grad():
        difference = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits @ torch.tensor([-1.0, 1.0])
        model.classifier.bias[0] += difference.median()
    model.save_pretrained(place / "teacher")
    labels = (difference <= difference.median()).long()
    frame = pandas.DataFrame({"sentence": texts, "label": labels})
    frame.to_csv(place / "data" / "sst2" / "validation.csv", index=False)
    message = refused("--data.dir", str(place / "data"), "--teacher.checkpoint", str(place / "teacher"))
    assert "another order" in message
    assert "negative = output 1" in message


def test_run_folder_of_another_configuration(refused: Callable[..., str], finished) -> None:
    message = refused("--seed", "7", "--student.num_features", "8", run_dir=finished.folder)
    assert "seed, student.num_features" in message


def test_run_folder_that_holds_something_else(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    assert "holds other files" in refused(run_dir=tmp_path / "photos")


def test_run_folder_is_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    assert "taken" in refused(run_dir=tmp_path / "taken")
    assert "taken" in refused(run_dir=tmp_path / "taken" / "inner")
    assert (tmp_path / "taken").read_text() == "mine"


def test_run_folder_without_write_permission(refused: Callable[..., str]) -> None:
    assert "--run_dir" in refused(run_dir=Path("/proc/self/run"))  # nobody can write there, not even root


def test_floor_can_be_lowered_after_training(
    tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The way out that the message offers works: the trained teacher is taken, not refused or trained again."""
    options = ["--config", str(tiny.config), "--run_dir", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["finetune_teacher.py", *options, "--teacher.margin_over_majority", "0.9"])
    with pytest.raises(SystemExit) as stopped:
        run(finetune_teacher.main)
    assert stopped.value.code == 2
    assert "lower teacher.margin_over_majority" in capsys.readouterr().err
    trained = (tmp_path / "run" / "teacher" / "model.safetensors").stat().st_mtime_ns
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr("sys.argv", ["finetune_teacher.py", *options])
    finetune_teacher.main()
    assert (tmp_path / "run" / "teacher" / "model.safetensors").stat().st_mtime_ns == trained
