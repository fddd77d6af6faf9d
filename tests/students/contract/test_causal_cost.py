"""Contract C15: the causal form of a whole text costs what the mechanism says, in memory and in operations."""

import pytest
import torch
from helpers.contract import FEATURE_COUNT, HEAD_SIZE, HEADS, VARIANTS, generator, mechanism
from helpers.fused_flops import FUSED
from helpers.largest_output import LargestOutput
from torch.utils.flop_counter import FlopCounterMode

from students import ATTENTIONS

LENGTH = 1024


def causal(name, features="fixed", choices=()):
    return mechanism(name, features, choices, torch.float32, causal=True, max_position_embeddings=LENGTH)


def is_cheap(name, features, choices):
    """Whether the cost of the mechanism, with these choices, grows less than with the square of the length."""
    has_form = ATTENTIONS[name].why_not_causal is None
    return has_form and causal(name, features, choices).complexity != "quadratic"


cheap_ones = pytest.mark.parametrize(
    ("name", "features", "choices"), [variant for variant in VARIANTS if is_cheap(*variant.values)]
)


def states_of(module, length):
    shape = (1, length, module.num_heads * module.head_size)
    return torch.randn(shape, generator=generator(0))


def largest_tensor(module):
    states = states_of(module, LENGTH).requires_grad_()
    with LargestOutput() as largest:
        module(states)[0].sum().backward()
    return largest.numel


@cheap_ones
def test_nothing_quadratic_is_built(name, features, choices):
    module = causal(name, features, choices)
    width = max(FEATURE_COUNT, HEAD_SIZE) if module.complexity == "linear" else 4 * 32  # √1024
    assert 0 < largest_tensor(module) <= 4 * HEADS * LENGTH * width


def test_chunked_softmax_builds_nothing_quadratic():
    module = causal("memory_efficient")
    assert largest_tensor(module) <= 4 * HEADS * LENGTH * module.chunk


def counted_operations(module, length):
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, torch.no_grad():
        module(states_of(module, length))
    return counter.get_total_flops()


@cheap_ones
def test_operations_grow_as_stated(name, features, choices):
    module = causal(name, features, choices)
    growth = counted_operations(module, LENGTH) / counted_operations(module, LENGTH // 2)
    low, high = {"linear": (1.5, 2.1), "subquadratic": (2, 3)}[module.complexity]
    assert low <= growth <= high


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_one_more_token_of_the_sparse_transformer_meets_no_more_than_it_sees(pattern):
    module = causal("sparse", choices={"pattern": pattern})
    _, state = module(states_of(module, 900))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.attend_causal(*module.project(states_of(module, 1)), state)
    projections = 3 * 2 * (HEADS * HEAD_SIZE) ** 2
    assert 0 < counter.get_total_flops() - projections <= 4 * HEADS * HEAD_SIZE * 2 * 32  # l + M/l


@cheap_ones
def test_a_further_token_costs_the_same_after_any_number(name, features, choices):
    module = causal(name, features, choices)
    if not module.constant_state or not module.continues:
        return
    with torch.no_grad():
        few, many = (module(states_of(module, length))[1] for length in (128, 896))
    costs = []
    for state in (few, many):
        with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, torch.no_grad():
            module(states_of(module, 1), None, state)
        costs.append(counter.get_total_flops())
    assert costs[0] == costs[1]
