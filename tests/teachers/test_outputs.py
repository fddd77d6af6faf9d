"""The teacher's outputs from disk are those of the teacher, and nothing foreign is taken for them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.closeness import assert_close
from helpers.layer_outputs import FIRST, FORCED, OUTPUTS, PLAN, batch_of, flat

from distill.utils.errors import UserError
from teachers.output_cache import build_cache
from teachers.output_format import Output, outputs_of, pack, row_type, unpack
from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs


def test_from_disk_as_live_within_a_level_of_each_token(teacher, examples, tmp_path):
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    cached = CachedTeacherOutputs(tmp_path, PLAN, examples, 16)
    indices = np.array([17, 3, 29, 4, 0])
    inputs = batch_of(examples, indices)
    got, want = cached.batch(indices, inputs), OnlineTeacherOutputs(teacher, PLAN).batch(indices, inputs)
    assert set(got) == set(want) == {"attention_output", "hidden_states", "query", "key", "logits"}
    assert_close(got["logits"], want["logits"])  # kept in full precision
    real = inputs["attention_mask"].bool()
    for kind, layers in PLAN.teacher.items():
        assert len(got[kind]) == len(layers)
        for one, other in zip(got[kind], want[kind], strict=True):
            assert one.dtype == torch.float32
            assert one.shape == other.shape
            step = (other.amax(-1) - other.amin(-1)) / 255
            assert ((one - other).abs().amax(-1) <= 0.501 * step)[real].all()
            assert one[~real].abs().sum() == 0
    assert cached.head_size == OnlineTeacherOutputs(teacher, PLAN).head_size == 16


def foreign(rows, dtype):
    return lambda path: np.save(path, np.zeros((rows, 8), dtype))


WRONG_FILES = {
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:200]), "is torn"),
    "empty": (lambda path: path.write_bytes(b""), "is torn"),
    "of fewer tokens": (
        lambda path: np.save(path, np.load(path)[:3]),
        r"holds .* \(3,.*\), not .* rows of the teacher's: it is not from this run",
    ),
    "of another form": (foreign(30, np.float64), "holds float64"),
    "of an earlier version": (foreign(30, np.float16), "holds float16"),
    "a pickle": (
        lambda path: np.save(path, np.array([{"a": 1}], object), allow_pickle=True),
        "is torn: .*Python objects",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
@pytest.mark.parametrize("file", ["logits.npy", "attention_output-layer-0-uint8.npy"])
def test_a_cache_that_is_not_what_its_name_says_is_refused(name, file, teacher, examples, tmp_path):
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    spoil, message = WRONG_FILES[name]
    spoil(tmp_path / file)
    with pytest.raises(UserError, match=message) as refusal:
        CachedTeacherOutputs(tmp_path, PLAN, examples, 16)
    assert f"{file} " in str(refusal.value)
    assert f"remove {tmp_path} to have" in str(refusal.value)


@pytest.mark.parametrize("plan", [FIRST, FORCED])
def test_of_the_last_layer_the_first_token_alone(plan, teacher, examples, tmp_path):
    """It reads as what the losses cut out of the whole, and takes a row per text."""
    build_cache(teacher, examples, flat(plan), tmp_path)
    indices = np.array([17, 3, 29])
    inputs = batch_of(examples, indices)
    got = CachedTeacherOutputs(tmp_path, plan, examples, 16).batch(indices, inputs)
    want = OnlineTeacherOutputs(teacher, plan).batch(indices, inputs)
    real = inputs["attention_mask"].bool()
    for kind, layers in plan.teacher.items():
        alone = kind != "layer_input"
        for place, (one, other) in enumerate(zip(got[kind], want[kind], strict=True)):
            last = alone and place == len(layers) - 1
            expected, mask = (other[:, :1], real[:, :1]) if last else (other, real)
            assert one.shape == expected.shape
            assert torch.allclose(one[mask], expected[mask], atol=0.02)
    first = next(output for output in flat(plan) if output.first_token)
    assert len(np.load(first.path(tmp_path))) == len(examples)


def test_nothing_is_stored_twice():
    """What a layer reads is what the layer below it hands on."""
    inputs = outputs_of(FORCED)["layer_input"]
    assert inputs == [Output("layer_input", 0), Output("hidden_states", 0), Output("hidden_states", 1)]
    both = flat(FORCED) | flat(replace(FIRST, teacher={"hidden_states": [0, 1, 2]}))
    assert sum(output.kind == "hidden_states" and not output.first_token for output in both) == 2


def test_states_of_any_size_are_rounded_to_their_own_range():
    states = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1e-20], [1.0], [1e4], [1e30], [0.0], [1.0]]
    )
    states[5, 0] = 300.0
    got = pack(states)
    assert got.dtype == row_type(32)
    error = (unpack(got, torch.device("cpu")) - states).abs().amax(-1)
    assert (error <= 0.51 * (states.amax(-1) - states.amin(-1)) / 255).all()


def test_states_of_half_precision_are_rounded_in_full_one():
    """As autocast gives them: levels computed in bf16 would be off by several."""
    states = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert pack(states).tobytes() == pack(states.float()).tobytes()
