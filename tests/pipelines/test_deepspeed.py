"""DeepSpeed for real, on two CPU processes: trains as without it, resumes, and leaves an ordinary student."""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from accelerate.commands import launch
from accelerate.utils.launch import prepare_deepspeed_cmd_env
from helpers.closeness import TRAINED, assert_close
from helpers.first_step import first_step
from transformers import AutoModelForSequenceClassification

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "configs" / "accelerate"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles an operation with g++"),
]


def forked(configuration: Path) -> dict[str, Any]:
    """Return how to start two ranks as ``accelerate launch`` would, but for its own process and their imports."""
    arguments = launch.launch_command_parser().parse_args(["--config_file", str(configuration), "a script"])
    prepared: list[Namespace] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "deepspeed_launcher", prepared.append)
        launch.launch_command(arguments)
    variables = prepare_deepspeed_cmd_env(prepared[0])[1]
    ours = {name: value for name, value in variables.items() if name.startswith("ACCELERATE_")}
    assert ours["ACCELERATE_USE_DEEPSPEED"] == "true"
    return {"launcher": 2, "variables": ours}


def launched(configuration: Path) -> dict[str, Any]:
    """Return how to start two ranks with the command that people write."""
    return {"launcher": ("accelerate", "launch", "--config_file", str(configuration))}


@pytest.fixture(scope="module", params=[2, 3], ids=["zero2", "zero3"])
def sharded_run(request, tiny, without_chance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run under ZeRO what ``without_chance`` ran on one process, killed once on the way."""
    configuration = CONFIGURATIONS / f"deepspeed_zero{request.param}.yaml"
    folder = tmp_path_factory.mktemp(f"zero{request.param}") / "run"
    started = tiny.start(folder, "--config", str(without_chance.config), **forked(configuration))
    killed, errors = tiny.kill_when(started, folder, "checkpoints/logits/step-*/manifest.json")
    assert killed, errors
    checkpoints = sorted(folder.glob("checkpoints/logits/step-*"))
    for checkpoint in checkpoints:  # it holds every model that DeepSpeed wraps
        assert [path.name for path in checkpoint.iterdir() if path.is_dir()] == ["pytorch_model"]
    again = launched(configuration) if request.param == 2 else forked(configuration)
    done = tiny.run(folder, "--config", str(without_chance.config), **again)
    assert done.returncode == 0, done.stderr
    assert f"step-{first_step(done.stderr, 'logits'):08d}" == checkpoints[-1].name
    return folder


def test_same_losses_as_without(sharded_run: Path, without_chance, histories: Callable, same_losses: Callable) -> None:
    same_losses(histories(without_chance.folder), histories(sharded_run))


def test_student_is_an_ordinary_checkpoint(sharded_run: Path, without_chance) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(sharded_run / "student", trust_remote_code=True)
    expected = json.loads((without_chance.folder / "record.json").read_text())["models"]["student"]["parameters"]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    plain, sharded = (
        pandas.read_parquet(folder / "predictions.parquet") for folder in (without_chance.folder, sharded_run)
    )
    assert sharded["id"].tolist() == plain["id"].tolist()
    left, right = (np.stack(frame["student_logits"].to_list()) for frame in (plain, sharded))
    assert_close(right, left, TRAINED)


def test_optimizer_states_on_the_cpu(tiny, without_chance, tmp_path: Path) -> None:
    """Offloading needs nothing compiled, and a teacher learns with it."""
    shipped = (CONFIGURATIONS / "deepspeed_zero2.yaml").read_text()
    offloading = shipped.replace("offload_optimizer_device: none", "offload_optimizer_device: cpu")
    assert offloading != shipped
    (tmp_path / "offload.yaml").write_text(offloading)
    easy = without_chance.config.with_name("first.yaml")  # with a floor well above the majority class
    how = forked(tmp_path / "offload.yaml")
    assert how["variables"]["ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"] == "cpu"
    done = tiny.run(tmp_path / "run", "--config", str(easy), script="finetune_teacher.py", **how)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "teacher" / "model.safetensors").exists()


def test_record_is_complete(sharded_run: Path) -> None:
    record = json.loads((sharded_run / "record.json").read_text())
    assert set(record["models"]) == {"teacher", "student", "baseline"}
    assert [stage["name"] for stage in record["stages"]] == ["layers", "logits"]
    assert all(np.isfinite(list(layer.values())).all() for stage in record["stages"] for layer in stage["fidelity"])


def test_bf16_is_that_of_plain_processes(tiny, tmp_path: Path, histories: Callable) -> None:
    """Autocast, not DeepSpeed's own bf16, which trained the demo's teacher to 79 instead of 86."""
    starts = {"zero2": forked(CONFIGURATIONS / "deepspeed_zero2.yaml"), "plain": {"launcher": 2}}
    losses = {}
    for name, how in starts.items():
        precision = ("--training.mixed_precision", "bf16")
        done = tiny.run(tmp_path / name, *precision, script="finetune_teacher.py", **how)
        assert done.returncode == 0, done.stderr
        losses[name] = [line["labels"] for line in histories(tmp_path / name)["teacher"]]
    assert len(losses["zero2"]) > 2
    assert losses["zero2"] == pytest.approx(losses["plain"], rel=1e-3)
