"""A teacher that is fine-tuned more than once."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from teachers.tries import score_of

SCRIPT = {"script": "finetune_teacher.py"}
TRIES = ("--teacher.tries", "2")


@pytest.fixture(scope="module")
def twice(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tries") / "run"
    done = tiny.run(folder, *TRIES, **SCRIPT)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def weights(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder / "teacher").state_dict()


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_better_one_on_held_out_train_is_kept(tiny, twice, tmp_path):
    folder, said = twice
    assert tiny.run(tmp_path / "other", "--seed", "43", **SCRIPT).returncode == 0
    assert tiny.run(tmp_path / "first", "--seed", "42", **SCRIPT).returncode == 0
    results = [
        json.loads((each / "checkpoints" / "teacher" / "result.json").read_text())
        for each in (tmp_path / "first", tmp_path / "other", folder)
    ]
    first, other, kept = (score_of(result) for result in results)
    assert f"try 1 of 2, seed 42: {first:.4f} on held-out train" in said
    assert f"try 2 of 2, seed 43: {other:.4f} on held-out train" in said
    assert kept == max(first, other)
    best = "first" if first >= other else "other"  # of equals the first
    assert f"try {1 if best == 'first' else 2} is kept" in said
    assert equal(weights(folder), weights(tmp_path / best))
    assert not list((folder / "checkpoints").glob("teacher-*")), "what the tries left is removed"
    assert results[2]["seconds"] > results[0]["seconds"]


def test_killed_after_the_first_try_it_goes_on_with_the_second(tiny, twice, tmp_path):
    process = tiny.start(tmp_path / "run", *TRIES, **SCRIPT)
    killed, _ = tiny.kill_when(process, tmp_path / "run", "checkpoints/teacher-1/result.json")
    assert killed
    done = tiny.run(tmp_path / "run", *TRIES, **SCRIPT)
    assert done.returncode == 0, done.stderr
    assert equal(weights(tmp_path / "run"), weights(twice[0]))
    assert [line for line in done.stdout.splitlines() if "of 2, seed" in line] == [
        line for line in twice[1].splitlines() if "of 2, seed" in line
    ]
