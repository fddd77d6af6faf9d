"""The estimate of memory against what torch allocates, and of disk against what is written."""

import weakref
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from distill.config.schema import StageConfig
from distill.preflight.memory_estimate import (
    DiskOfPhase,
    activation_memory,
    available_host_memory,
    count,
    folder_bytes,
    run_disk,
    saved_bytes,
    state_memory,
)
from distill.training.launcher import Sharding
from distill.training.optimizer import parameter_groups, set_trainable
from students import student_from_teacher


def test_states_are_what_a_step_allocates(make_bert) -> None:
    model = make_bert()
    stage = StageConfig("one", 1, 1e-3, {"labels": 1.0}, train="encoder")
    set_trainable(model, stage)
    optimizer = torch.optim.AdamW(parameter_groups(model, stage, 0.01), fused=True)
    ids = torch.randint(5, 60, (4, 8))
    model(input_ids=ids).logits.square().sum().backward()
    optimizer.step()
    needed = state_memory(*count(model), 0, 0, Sharding())
    parameters = list(model.parameters())
    assert needed.weights == sum(parameter.nbytes for parameter in parameters)
    assert needed.gradients == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    states = [v for state in optimizer.state.values() for v in state.values() if v.numel() > 1]
    assert needed.optimizer == pytest.approx(sum(v.nbytes for v in states), rel=1e-3)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("attention", ["performer", "softmax"])
def test_activations_grow_with_the_batch_as_predicted(make_bert, attention: str, dtype: torch.dtype | None) -> None:
    student, _ = student_from_teacher(make_bert(), layer_map=[0, 1], attention=attention)
    student.eval()
    before = torch.random.get_rng_state()
    first, more = activation_memory(student, 16, dtype)
    assert saved_bytes(student, 8, 16, dtype) == pytest.approx(first + 7 * more, rel=0.05)
    assert more > 2 * 16 * 32 * 4 * 10  # at least ten arrays of the hidden size in each of two layers
    assert torch.equal(before, torch.random.get_rng_state()), "counting moved the random state"
    assert not student.training


def test_what_was_counted_is_freed(make_bert) -> None:
    """A graph that holds a result of its own is never freed: a check of long texts took all memory that way."""
    bert, results = make_bert(), []
    for module in bert.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm):
            module.register_forward_hook(lambda module, inputs, output: results.append(weakref.ref(output)))
    saved_bytes(bert, 2, 16, None)
    assert len(results) > 10
    assert not [result for result in results if result() is not None]


def test_one_and_two_examples_are_enough_for_a_teacher(make_bert) -> None:
    short, long = (activation_memory(make_bert(), length)[1] for length in (8, 16))
    assert long == pytest.approx(2 * short, rel=0.1)


def test_sharding_divides_what_it_shares_out() -> None:
    plain, two, eight = (state_memory(1000, 1000, 0, 0, Sharding(n, 2)) for n in (1, 2, 8))
    assert plain.optimizer == 12_000
    assert two.optimizer == 6_000
    assert eight.optimizer == 1_500
    offloaded = state_memory(1000, 1000, 0, 0, Sharding(2, 2, offload=True))
    assert offloaded.optimizer == 0
    assert offloaded.offloaded == 8_000
    assert offloaded.total < two.total
    assert state_memory(1000, 1000, 0, 0, Sharding(2, 2, half=True)).total < two.total
    assert state_memory(1000, 1000, 77, 0, Sharding()).weights == 4_077


def test_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    unlimited = available_host_memory(tmp_path)
    assert unlimited > 10**6
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available_host_memory(tmp_path) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_host_memory(tmp_path) > 10**6


def test_disk_counts_what_is_there_already(tmp_path: Path) -> None:
    phases = [DiskOfPhase(20, 20, 0, 3), DiskOfPhase(10, 5, 3, 2)]
    first = 4 * (10 + 20) + 3 * (4 * 20 + 8 * 20)  # the second has less: its checkpoints come when those are gone
    assert run_disk(10, phases, tmp_path / "none") == first
    assert run_disk(10, [*phases, *phases], tmp_path / "none") == 4 * (10 + 20 + 10 + 20) + 3 * (4 * 20 + 8 * 20)
    assert run_disk(10, phases[1:], tmp_path / "none") == 4 * (10 + 10) + 2 * (4 * 10 + 8 * 5) + 3 * 4 * 10
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x" * 100)
    assert folder_bytes(tmp_path) == 100
    assert run_disk(10, phases, tmp_path) == first - 100
    assert run_disk(0, [DiskOfPhase(0, 0, 0, 0)], tmp_path) == 0


def test_a_real_size() -> None:
    """BERT-base: 110 million parameters, 16 bytes each while it is fine-tuned."""
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig())
    needed = state_memory(*count(model), 0, 0, Sharding())
    assert needed.certain == pytest.approx(16 * 109.5e6, rel=0.01)
