"""Optimizer steps that processes share are those of one: weighted classes, and teachers that read other tokens."""

from pathlib import Path

import pytest
import torch
from helpers.closeness import TRAINED, assert_close
from helpers.shared_steps import BATCHES, CASES

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / "helpers" / "shared_steps.py"


@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_steps_of_one(case, tiny, tmp_path) -> None:
    ends = []
    for processes in (1, 2):
        folder = tmp_path / f"{processes}"
        folder.mkdir()
        launcher = {} if processes == 1 else {"launcher": processes}
        done = tiny.run(folder, case, script=str(SCRIPT), **launcher)
        assert done.returncode == 0, done.stderr
        ends.append(torch.load(folder / "end.pt"))
    (one, losses), (two, shared) = ends
    assert len(losses) == len(shared) == len(BATCHES)
    assert losses[-1][-1] == shared[-1][-1] == sum(map(len, BATCHES))
    assert_close(torch.tensor(shared), torch.tensor(losses), TRAINED)
    assert one.keys() == two.keys()
    assert ("maps.0.weight" in one) is ("logits" in CASES[case][1])
    moved, expected = (torch.cat([tensor.flatten() for tensor in each.values()]) for each in (two, one))
    assert_close(moved, expected, TRAINED)
    assert all(expected.abs().max() > 0.01 for name, expected in one.items() if name.startswith("maps.0.w"))
