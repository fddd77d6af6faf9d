"""Teachers that are torn, foreign or not safe to load: refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from distill.data.tokenization import train_tokenizer

Place = Path
"""A folder made for one mistake: see ``conftest.py``."""


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


def relative_positions(folder: Path) -> None:
    """Make a checkpoint one of relative positions, which transformers 5 leaves out without a word."""
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.attention.self.distance_embedding.weight"] = torch.ones(9, 8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(position_embedding_type="relative_key")(folder)


def nothing(folder: Path) -> None:
    """Leave a checkpoint as it is."""


def change_config(**changes: object) -> Callable[[Path], None]:
    """Return what changes the configuration of a checkpoint."""

    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))

    return change


def replace_with(file: str, content: str) -> Callable[[Path], None]:
    """Return what replaces a file of a checkpoint."""
    return lambda folder: (folder / file).write_text(content) and None


class Spy:
    """Would end the test if it was ever unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return pytest.fail, ("a pickle was executed",)


def pickled(folder: Path) -> None:
    """Leave weights only as a pickle that does something."""
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Spy()}, folder / "pytorch_model.bin")


def remote_code(folder: Path) -> None:
    """Make a checkpoint of a class that it brings itself."""
    change_config(model_type="spy", auto_map={"AutoConfig": "spy.Spy", "AutoModel": "spy.Spy"})(folder)
    (folder / "spy.py").write_text("raise SystemExit('code of a checkpoint was executed')")


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "layers of another kind": ("mpnet", nothing, ("is a 'mpnet'", "those of bert, roberta", "student.checkpoint")),
    "torn weights": ("teacher", lambda folder: truncate(folder / "model.safetensors"), ("weights",)),
    "torn weights of an encoder": ("encoder", lambda folder: truncate(folder / "model.safetensors"), ("weights",)),
    "torn configuration": ("teacher", lambda folder: truncate(folder / "config.json"), ("teacher.checkpoint",)),
    "no weights": ("teacher", lambda folder: (folder / "model.safetensors").unlink(), ("weights",)),
    "a weight is missing": ("teacher", drop_weight, ("torn", "layer.1.output.dense.weight")),
    "no tokenizer": ("teacher", remove_tokenizer, ("tokenizer",)),
    "another tokenizer": ("teacher", larger_tokenizer, ("tokenizer", "model knows")),
    "another number of labels": ("three_labels", nothing, ("3 labels", "sst2")),
    "outputs that are not finite": ("teacher", not_finite, ("not finite",)),
    "code of its own": ("teacher", remote_code, ("code of its own",)),
    "weights that are a pickle": ("teacher", pickled, ("pickle", "safetensors")),
    "weights of another size": ("teacher", change_config(intermediate_size=48), ("of another size",)),
    "empty weights": ("teacher", replace_with("model.safetensors", " "), ("weights",)),
    "weights that are a web page": ("teacher", replace_with("model.safetensors", "<html></html>"), ("weights",)),
    "pointer of git LFS": ("teacher", replace_with("model.safetensors", "version https://git-lfs"), ("weights",)),
    "configuration that is not JSON": ("teacher", replace_with("config.json", "model: bert"), ("teacher.checkpoint",)),
    "configuration that is null": ("teacher", replace_with("config.json", "null"), ("teacher.checkpoint",)),
    "unknown kind of model": ("teacher", change_config(model_type="bort"), ("bort",)),
    "no heads": ("teacher", change_config(num_attention_heads=0), ("teacher",)),
    "unknown activation": ("teacher", change_config(hidden_act="swoosh"), ("swoosh",)),
    "torn tokenizer": ("teacher", lambda folder: truncate(folder / "tokenizer.json"), ("tokenizer",)),
    "tokenizer that is a list": ("teacher", replace_with("tokenizer_config.json", "[]"), ("tokenizer",)),
    "an adapter": ("teacher", lambda folder: (folder / "adapter_config.json").write_text("{}") and None, ("adapter",)),
    "relative positions": ("teacher", relative_positions, ("relative_key", "absolute")),
    "a decoder": ("teacher", change_config(is_decoder=True), ("decoder",)),
    "several labels at once": ("teacher", change_config(problem_type="multi_label_classification"), ("multi_label",)),
    "labels of another task": ("teacher", change_config(id2label={"0": "a", "1": "b"}), ("'a', 'b'", "id2label")),
    "millions of layers": ("teacher", change_config(num_hidden_layers=10**7), ("num_hidden_layers 10,000,000",)),
    "no such folder": ("nowhere", nothing, ("nowhere",)),
    "folder of something else": ("data", nothing, ("teacher.checkpoint",)),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint(name: str, refused: Callable[..., str], place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, spoil, expected = CHECKPOINTS[name]
    spoil(place / checkpoint)
    message = refused("--data.dir", str(place / "data"), "--teacher.checkpoint", str(place / checkpoint))
    for part in expected:
        assert part in message, message


def test_attention_maps_of_a_teacher_that_reads_windows(refused: Callable[..., str], place: Place) -> None:
    options = ("--data.dir", str(place / "data"), "--teacher.checkpoint", str(place / "teacher"))
    stages = "[{name: maps, epochs: 1, learning_rate: 1.0e-4, losses: {attention_map: 1.0}}]"
    message = refused(*options, "--data.max_length", "600", "--stages", stages)
    assert "stages.maps" in message
    assert "the teacher has 512 positions" in message


def test_finished_teacher_below_the_floor(refused: Callable[..., str], place: Place) -> None:
    options = ("--data.dir", str(place / "data"), "--teacher.checkpoint", str(place / "teacher"))
    assert "answers every text of validation with" in refused(*options, "--teacher.margin_over_majority", "0")


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


def shallow(folder: Path) -> None:
    """Make an encoder of a single layer, too few for the student."""
    shutil.copytree(folder / "encoder", folder / "shallow")
    config = BertConfig.from_pretrained(folder / "encoder", num_hidden_layers=1)
    BertModel(config).save_pretrained(folder / "shallow")


ACROSS: dict[str, tuple[str, str, Callable[[Path], None], tuple[str, ...]]] = {
    "a start whose layers are not BERT's": (
        "teacher",
        "mpnet",
        nothing,
        ("student.checkpoint", "'mpnet'", "roberta", "give a BERT-like encoder"),
    ),
    "no such start": ("teacher", "nowhere", nothing, ("student.checkpoint", "nowhere")),
    "a start with other labels": ("teacher", "three_labels", nothing, ("student", "3 labels", "sst2")),
    "torn weights of the start": (
        "teacher",
        "encoder",
        lambda folder: truncate(folder / "encoder" / "model.safetensors"),
        ("encoder", "weights"),
    ),
    "a start with too few layers": ("teacher", "shallow", shallow, ("student.num_layers", "above")),
    "a teacher of another number of labels": ("three_labels", "encoder", nothing, ("3 labels", "sst2")),
    "a teacher with code of its own": (
        "teacher",
        "encoder",
        lambda folder: remote_code(folder / "teacher"),
        ("code of its own", "--teacher.trust_remote_code true"),
    ),
    "a teacher of no kind of classifier": (
        "teacher",
        "encoder",
        lambda folder: change_config(model_type="clip", architectures=["CLIPModel"])(folder / "teacher"),
        ("'clip'", "no sequence classifier"),
    ),
}


BASELINES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "layers that are not BERT's": ("mpnet", nothing, ("baseline.checkpoint", "'mpnet'", "give a BERT-like encoder")),
    "no such start": ("nowhere", nothing, ("baseline.checkpoint", "nowhere")),
    "other labels": ("three_labels", nothing, ("baseline ", "3 labels", "sst2")),
    "too few layers": ("shallow", shallow, ("baseline.checkpoint", "num_layers 2 is above")),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_start_of_the_baseline_is_refused_before_anything_is_trained(
    name: str, refused: Callable[..., str], place: Place
) -> None:
    start, spoil, expected = BASELINES[name]
    spoil(place)
    models = ("--teacher.checkpoint", str(place / "teacher"), "--baseline.checkpoint", str(place / start))
    message = refused("--data.dir", str(place / "data"), *models, "--student.num_layers", "2")
    for part in expected:
        assert part in message, message


@pytest.mark.parametrize("name", ACROSS)
def test_a_student_made_of_another_encoder(name: str, refused: Callable[..., str], place: Place) -> None:
    teacher, start, spoil, expected = ACROSS[name]
    spoil(place)
    models = ("--teacher.checkpoint", str(place / teacher), "--student.checkpoint", str(place / start))
    stages = "[{name: logits, epochs: 1, learning_rate: 1.0e-4, losses: {logits: 1.0}}]"
    layers = ("--student.num_layers", "2")
    message = refused("--data.dir", str(place / "data"), *models, *layers, "--stages", stages)
    for part in expected:
        assert part in message, message
