"""What the launcher says, and what the Accelerator makes of it."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from distill.training import accelerator as launch
from distill.training.accelerator import autocast_dtype
from distill.training.launcher import read_launcher
from distill.utils.errors import UserError


def test_precision_of_inference_during_training(make_accelerator):
    accelerator: Accelerator = make_accelerator()
    assert autocast_dtype(accelerator) is None
    accelerator.state._mixed_precision = "bf16"
    assert autocast_dtype(accelerator) is torch.bfloat16


GOOD = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
WRONG_VARIABLES = {
    "WORLD_SIZE is 'many'": {"WORLD_SIZE": "many"},
    "WORLD_SIZE is '0'": {"WORLD_SIZE": "0"},
    "WORLD_SIZE is '-1' in the environment, not a whole number from 1 on": {"WORLD_SIZE": "-1", "LOCAL_RANK": "-1"},
    "WORLD_SIZE is '٢'": {"WORLD_SIZE": "٢"},
    "WORLD_SIZE is '1e9'": {"WORLD_SIZE": "1e9"},
    "LOCAL_WORLD_SIZE is '-1'": GOOD | {"LOCAL_WORLD_SIZE": "-1"},
    "LOCAL_WORLD_SIZE is 4 in the environment but WORLD_SIZE is 2": GOOD | {"LOCAL_WORLD_SIZE": "4"},
    "LOCAL_RANK is 1 in the environment but LOCAL_WORLD_SIZE is 1": GOOD | {"LOCAL_WORLD_SIZE": "1"},
    "LOCAL_RANK is '-2'": {"LOCAL_RANK": "-2"},
    "LOCAL_RANK is 0 in the environment but WORLD_SIZE is missing": {"LOCAL_RANK": "0"},
    "LOCAL_RANK is 0 in the environment but RANK is missing": {"LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    "but RANK is missing": GOOD | {"RANK": "-1"},
    "but MASTER_ADDR is missing; unset": GOOD | {"MASTER_ADDR": ""},
    "MASTER_PORT is 65536": GOOD | {"MASTER_PORT": "65536"},
    "MASTER_PORT is '-1'": GOOD | {"MASTER_PORT": "-1"},
    "OMPI_COMM_WORLD_SIZE is 'two'": {"OMPI_COMM_WORLD_SIZE": "two"},
    "OMPI_COMM_WORLD_SIZE is 2 in the environment but WORLD_SIZE is missing": {"OMPI_COMM_WORLD_SIZE": "2"},
    "LOCAL_WORLD_SIZE is ''": {"LOCAL_WORLD_SIZE": ""},
    "LOCAL_RANK is 'cuda:0'": {"LOCAL_RANK": "cuda:0"},
    "MASTER_PORT is 'http'": {"MASTER_PORT": "http"},
    "RANK is 2 in the environment but WORLD_SIZE is 2": GOOD | {"RANK": "2"},
    "WORLD_SIZE is 2 in the environment but RANK is missing": {"WORLD_SIZE": "2"},
    "but MASTER_ADDR is missing": {name: value for name, value in GOOD.items() if name != "MASTER_ADDR"},
    "ACCELERATE_MIXED_PRECISION is 'fp4'": {"ACCELERATE_MIXED_PRECISION": "fp4"},
}


@pytest.mark.parametrize("message", WRONG_VARIABLES)
def test_variables_that_no_launcher_writes_are_named(message):
    with pytest.raises(UserError) as refusal:
        read_launcher(WRONG_VARIABLES[message])
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("environment", "processes"),
    [({}, 1), (GOOD, 2), ({"LOCAL_RANK": "-1"}, 1), (GOOD | {"PMI_SIZE": "2"}, 2), ({"PMI_SIZE": "1"}, 1)],
)
def test_variables_that_launchers_write_are_read(environment, processes):
    assert read_launcher(environment).processes == processes


def test_machines_that_chose_different_precisions_are_named(monkeypatch):
    accelerator = SimpleNamespace(num_processes=2, mixed_precision="no")
    monkeypatch.setattr(launch, "gather_object", lambda chosen: [*chosen, "bf16"])
    with pytest.raises(UserError, match="bf16 and no"):
        launch.check_same_precision(accelerator)
    monkeypatch.setattr(launch, "gather_object", lambda chosen: chosen * 2)
    launch.check_same_precision(accelerator)


def test_processes_that_disagree_send_numbers_of_one_kind():
    """A truth value on one process and a number of a signal on another have other sizes, which ends the run."""
    sent = []
    accelerator = SimpleNamespace(num_processes=2, device="cpu", gather=lambda own: sent.append(own) or own)
    assert [launch.highest(accelerator, value) for value in (True, False, 15)] == [1, 0, 15]
    assert {each.dtype for each in sent} == {torch.int64}
