"""Every writer on a disk that fills up: one line, nothing half-written, and the same again once there is room."""

import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
from accelerate import Accelerator
from helpers.closeness import assert_close
from helpers.layer_outputs import OUTPUTS
from helpers.records import sample_json, typed
from safetensors.torch import load_file
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from distill.data.token_store import open_tokens, write_tokens
from distill.data.tokenization import train_tokenizer
from distill.evaluation.predictions_file import write_predictions
from distill.evaluation.record import read_record, write_record
from distill.export import deployment
from distill.export.bert_folder import deploy_bert
from distill.export.deployment import predict_validation
from distill.export.formats import FORMATS
from distill.training.checkpoints import is_whole, keep_best, save_checkpoint
from distill.training.run_folder import RunFolder, save_model
from distill.utils.cli import run
from distill.utils.files import copy_directory, is_leftover, removed_on_error
from distill.utils.interrupts import SIGNALS
from pipelines.run.shared_stages import share
from teachers.loading import freeze
from teachers.output_cache import build_cache

LIMIT = 4096
"""Bytes of the largest file that can be written; every writer here needs more for one of its files."""


@contextmanager
def full_disk(limit: int = LIMIT) -> Iterator[None]:
    """Let no file grow beyond a limit, as none does on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the test runner its own handlers back."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def tools(make_bert: Any, make_examples: Any, make_accelerator: Any) -> SimpleNamespace:
    """Return what there is to be written."""
    accelerator: Accelerator = make_accelerator()
    layer = accelerator.prepare(nn.Linear(40, 40))
    tokenizer = train_tokenizer([f"word{number} {number * 7919}" for number in range(300)], 400)
    return SimpleNamespace(
        accelerator=accelerator,
        layer=layer,
        bert=freeze(make_bert(num_layers=3)),
        examples=make_examples(600),
        tokenizer=tokenizer,
        record=typed(sample_json()),
        frame=pandas.DataFrame({"id": np.arange(5000), "label": np.random.default_rng(0).random(5000)}),
    )


def write_logits(tools: SimpleNamespace, folder: Path) -> None:
    build_cache(tools.bert, tools.examples, [], folder / "cache")


def write_layers(tools: SimpleNamespace, folder: Path) -> None:
    build_cache(tools.bert, tools.examples, OUTPUTS, folder / "cache")


def write_token_store(tools: SimpleNamespace, folder: Path) -> None:
    (folder / "tokens").mkdir(exist_ok=True)
    with removed_on_error(folder / "tokens"):
        write_tokens(folder / "tokens", tools.examples, [tools.examples], 60)
    assert len(open_tokens(folder / "tokens")) == 1200


def write_checkpoint(tools: SimpleNamespace, folder: Path) -> None:
    save_checkpoint(tools.accelerator, folder, {"global_step": 1})
    assert is_whole(folder / "step-00000001")


def write_best_epoch(tools: SimpleNamespace, folder: Path) -> None:
    keep_best(tools.layer.state_dict(), folder, 1)
    assert_close(load_file(folder / "best-epoch-1.safetensors")["weight"], tools.layer.state_dict()["weight"])


def write_model(tools: SimpleNamespace, folder: Path) -> None:
    save_model(tools.bert, tools.tokenizer, folder / "student")


def write_bert(tools: SimpleNamespace, folder: Path) -> None:
    validation = {"validation": tools.examples}
    expected = predict_validation(tools.bert, validation)
    facts = {"attention": "softmax"}
    deploy_bert(tools.bert, tools.tokenizer, folder / "served", validation, expected, facts, lambda *_: None)


def write_numbers(tools: SimpleNamespace, folder: Path) -> None:
    write_record(tools.record, folder / "record.json")
    assert read_record(folder / "record.json") == tools.record


def write_answers(tools: SimpleNamespace, folder: Path) -> None:
    write_predictions(tools.frame, folder / "predictions.parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(folder / "predictions.parquet"), tools.frame)


def trained(folder: Path) -> Path:
    """Return the folder of a phase that was finished while there was room."""
    phase = RunFolder(folder / "run").phase("depth")
    if not phase.exists():
        (phase / "student").mkdir(parents=True)
        (phase / "student" / "model.safetensors").write_bytes(b"0" * 2 * LIMIT)
        (phase / "result.json").write_text("{}")
    return phase


def write_copy(tools: SimpleNamespace, folder: Path) -> None:
    copy_directory(trained(folder) / "student", folder / "student")


def write_shared_stage(tools: SimpleNamespace, folder: Path) -> None:
    trained(folder)
    config = SimpleNamespace(student=SimpleNamespace(num_layers=3))
    run = SimpleNamespace(accelerator=tools.accelerator)
    context: Any = SimpleNamespace(run=run, folder=RunFolder(folder / "run"), config=config)
    setup: Any = SimpleNamespace(train=tools.examples)
    stage: Any = SimpleNamespace(name="depth")
    share(context, setup, stage, folder / "shared" / "0123")


WRITERS: dict[str, tuple[Callable[[SimpleNamespace, Path], None], str]] = {
    "the teacher's logits": (write_logits, "cache/logits.npy"),
    "the teacher's layers": (write_layers, "cache/attention_output-layer-0-uint8.npy"),
    "tokens of texts without labels": (write_token_store, "tokens/shape.json"),
    "a checkpoint": (write_checkpoint, "step-00000001"),
    "the weights of an epoch": (write_best_epoch, "best-epoch-1.safetensors"),
    "a model": (write_model, "student"),
    "a plain BERT": (write_bert, "served"),
    "a record": (write_numbers, "record.json"),
    "predictions": (write_answers, "predictions.parquet"),
    "the student of a run": (write_copy, "student"),
    "a stage for other runs": (write_shared_stage, "shared/0123"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_on_a_full_disk(
    name: str, tools: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, whole = WRITERS[name]
    trained(tmp_path)
    with pytest.raises(SystemExit) as stopped, full_disk():
        run(lambda: write(tools, tmp_path))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "file too large" in line.lower() or "no space left" in line.lower(), line
    assert "Traceback" not in error
    assert not (tmp_path / whole).exists()
    write(tools, tmp_path)
    assert (tmp_path / whole).exists()
    assert not [path for path in tmp_path.rglob("*") if is_leftover(path)]


def test_figures_on_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorBoard writes in a thread, whose traceback would stand before our line."""
    writer = SummaryWriter(str(tmp_path))

    def write() -> None:
        for step in range(200):
            writer.add_scalar("depth/loss", 1.0, step)
        writer.flush()

    with pytest.raises(SystemExit) as stopped, full_disk():
        run(write)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: file too large")


def test_an_export_on_a_full_disk(
    tools: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was exported before stays as it was."""
    monkeypatch.setattr(deployment, "export_onnx", lambda student, path: path.write_bytes(bytes(2 * LIMIT)))
    output = tmp_path / "student.onnx"
    output.write_text("an earlier export")
    with pytest.raises(SystemExit) as stopped, full_disk():
        run(lambda: deployment.deploy_file(tools.bert, output, FORMATS["onnx"], {}, {}))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: --output {output} cannot be written: File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]
    assert output.read_text() == "an earlier export"
