"""Checkpoints are whole or not used."""

import errno
import json
from pickle import UnpicklingError

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from helpers.short_stages import LABELS
from torch import nn
from torch.serialization import safe_globals

from distill.training.checkpoints import (
    KEPT,
    classes_in_shards,
    is_whole,
    keep_best,
    load_checkpoint,
    save_checkpoint,
    write_manifest,
)
from distill.utils.errors import UserError


@pytest.fixture
def prepared(make_accelerator):
    """An accelerator with one model whose weight tells which checkpoint was loaded."""
    accelerator = make_accelerator()
    model = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    return accelerator, accelerator.prepare(model, optimizer)[0]


def save(prepared, folder, step):
    accelerator, model = prepared
    nn.init.constant_(model.weight, step)
    save_checkpoint(accelerator, folder, {"global_step": step, "note": [0.1, None]})
    return folder / f"step-{step:08d}"


def load(prepared, folder):
    accelerator, model = prepared
    nn.init.constant_(model.weight, -1)
    state = load_checkpoint(accelerator, folder)
    return (state or {}).get("global_step"), model.weight.item()


def test_the_newest_is_loaded_with_its_state(prepared, tmp_path):
    for step in (9, 10, 200):
        save(prepared, tmp_path, step)
    assert load(prepared, tmp_path) == (200, 200)
    assert load_checkpoint(prepared[0], tmp_path) == {"global_step": 200, "note": [0.1, None]}


def test_without_a_checkpoint_nothing_is_touched(prepared, tmp_path):
    assert load(prepared, tmp_path / "nowhere") == (None, -1)


def test_only_the_newest_are_kept(prepared, tmp_path):
    for step in range(1, 6):
        save(prepared, tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08d}" for step in (4, 5)]
    assert KEPT == 2


def tear(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [tear, flip_a_bit, lambda path: path.unlink()], ids=["torn", "flipped", "missing"])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "random_states_0.pkl"])
def test_a_torn_newest_is_skipped_for_the_one_before(damage, name, prepared, tmp_path):
    save(prepared, tmp_path, 1)
    damage(save(prepared, tmp_path, 2) / name)
    assert load(prepared, tmp_path) == (1, 1)


def test_when_all_are_torn_the_stage_starts_over(prepared, tmp_path):
    for step in (1, 2):
        tear(save(prepared, tmp_path, step) / "model.safetensors")
    assert load(prepared, tmp_path) == (None, -1)


@pytest.mark.parametrize("content", [None, "", '{"model.safetensors": "12', "[]"])
def test_without_a_good_manifest_a_checkpoint_is_not_whole(content, prepared, tmp_path):
    manifest = save(prepared, tmp_path, 1) / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    assert not is_whole(manifest.parent)
    assert load(prepared, tmp_path) == (None, -1)


class Spy:
    """Would end the test if it was ever unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_what_deepspeed_keeps_in_its_shards_is_read_and_nothing_else(tmp_path, monkeypatch):
    """It loads them with weights_only=False; the commands overrule that."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    scaler, dynamic = LossScaler(2.0), DynamicLossScaler(2.0, 10, 1.0, 1, False)
    shard = {
        "scaler": [scaler, dynamic],
        "stage": ZeroStageEnum.weights,
        "mapping": fragment_address(numel=3, start=1),
    }
    torch.save(shard, tmp_path / "shard.pt")
    with safe_globals(classes_in_shards()):
        read = torch.load(tmp_path / "shard.pt", weights_only=False)
    assert [each.cur_scale for each in read["scaler"]] == [2.0, 2.0]
    assert (read["stage"], read["mapping"]) == (ZeroStageEnum.weights, fragment_address(3, 1))
    torch.save(shard | {"spy": Spy()}, tmp_path / "shard.pt")
    with safe_globals(classes_in_shards()), pytest.raises(UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "shard.pt", weights_only=False)


@pytest.mark.parametrize("error", [UnpicklingError("Weights only load failed"), AssertionError("1 != 2"), TypeError()])
def test_a_whole_checkpoint_that_cannot_be_loaded_is_one_line(error, prepared, tmp_path, monkeypatch):
    def fail(self, folder):
        raise error

    folder = save(prepared, tmp_path, 1)
    monkeypatch.setattr(type(prepared[0]), "load_state", fail)
    with pytest.raises(UserError, match=rf"{folder.name} does not fit this run .*Remove {tmp_path}"):
        load(prepared, tmp_path)


def test_a_broken_disk_is_no_fault_of_a_checkpoint(prepared, tmp_path, monkeypatch):
    def fail(self, folder):
        raise OSError(errno.EIO, "Input/output error")

    save(prepared, tmp_path, 1)
    monkeypatch.setattr(type(prepared[0]), "load_state", fail)
    with pytest.raises(OSError, match="Input/output error"):
        load(prepared, tmp_path)


def test_one_that_was_written_with_another_optimizer_is_refused(prepared, make_accelerator, tmp_path):
    folder = save(prepared, tmp_path, 1)
    model = nn.Linear(1, 1)
    accelerator = make_accelerator()
    accelerator.prepare(model, torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias]}]))
    with pytest.raises(UserError, match="does not fit this run") as refused:
        load_checkpoint(accelerator, tmp_path)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_additional_file_is_noticed(tmp_path):
    (tmp_path / "one").write_text("1")
    write_manifest(tmp_path)
    assert is_whole(tmp_path)
    (tmp_path / "two").write_text("2")
    assert not is_whole(tmp_path)


def test_what_a_killed_save_left_is_neither_loaded_nor_in_the_way(prepared, tmp_path):
    save(prepared, tmp_path, 1)
    (tmp_path / "checkpoint.incomplete").mkdir()
    (tmp_path / "checkpoint.incomplete" / "state.json").write_text(json.dumps({"global_step": 7}))
    assert load(prepared, tmp_path) == (1, 1)
    save(prepared, tmp_path, 2)
    assert load(prepared, tmp_path) == (2, 2)
    assert not (tmp_path / "checkpoint.incomplete").exists()


def test_a_checkpoint_that_a_kill_left_set_aside_is_still_good(prepared, tmp_path):
    save(prepared, tmp_path, 1)
    folder = save(prepared, tmp_path, 2)
    folder.rename(folder.with_name(f"{folder.name}.replaced"))  # between the two renames of replace_directory
    assert load(prepared, tmp_path) == (2, 2)
    save(prepared, tmp_path, 2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000002"]


def best_epochs(folder):
    return sorted(path.name for path in folder.glob("best-epoch-*"))


def test_no_more_best_epochs_are_kept_than_checkpoints_go_back_to(prepared, tmp_path):
    """Of a few examples there are hundreds of epochs, each of which may be better than those before."""
    for epoch in range(1, 8):
        keep_best(prepared[1].state_dict(), tmp_path, epoch)
        if epoch in (2, 4):
            save_checkpoint(prepared[0], tmp_path, {"global_step": epoch, "best_epoch": epoch})
    assert best_epochs(tmp_path) == [f"best-epoch-{epoch}.safetensors" for epoch in (2, 4, 7)]
    tear(tmp_path / "step-00000002" / "state.json")
    keep_best(prepared[1].state_dict(), tmp_path, 8)
    assert best_epochs(tmp_path) == [f"best-epoch-{epoch}.safetensors" for epoch in (4, 8)]


STATES = {
    "unknown": ('{"global_step": 2, "colour": 1}', "in its state.json colour is unknown"),
    "list": ("[2]", "in its state.json it holds a list"),
    "no JSON": ('{"global_step": ', "its state.json is no JSON"),
    "no end": ("[" * 100_000, "its state.json is no JSON"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_nobody_can_go_on_from_is_named_and_the_one_before_is_used(name, prepared, tmp_path, monkeypatch):
    content, expected = STATES[name]
    warnings = []
    monkeypatch.setattr("distill.training.checkpoints.logger.warning", warnings.append)
    save(prepared, tmp_path, 1)
    folder = save(prepared, tmp_path, 2)
    (folder / "state.json").write_text(content)
    write_manifest(folder)
    accelerator, model = prepared
    found = load_checkpoint(accelerator, tmp_path, lambda state: "colour is unknown" if "colour" in state else None)
    assert (found["global_step"], model.weight.item()) == (1, 1)
    assert len(warnings) == 1
    assert expected in warnings[0]
    assert str(folder) in warnings[0]
    keep_best(model.state_dict(), tmp_path, 3)  # reads all states, too


def test_a_stage_asks_whether_it_can_go_on_from_a_state(train_stage, tmp_path):
    """With a field of another version in all of them it starts over."""
    expected = train_stage(LABELS, with_teacher=False)[1].history
    folders = list((tmp_path / "stage").glob("step-*"))
    for folder in folders:
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(state | {"colour": 1}))
        write_manifest(folder)
    assert len(folders) == KEPT
    assert train_stage(LABELS, with_teacher=False)[1].history == expected
