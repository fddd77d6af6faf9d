"""Contract C7 and C8: memory and operations grow as the mechanism says, and features count where it says so."""

import pytest
import torch
from helpers.contract import FEATURE_COUNT, HEAD_SIZE, HEADS, configuration, inputs, mechanism, over_variants, run
from helpers.fused_flops import FUSED
from helpers.largest_output import LargestOutput
from torch.utils.flop_counter import FlopCounterMode

from students import ATTENTIONS, StudentConfig


@over_variants
def test_c7_nothing_quadratic_is_built(name, features, choices):
    module = mechanism(name, features, choices, dtype=torch.float32, max_position_embeddings=1024)
    if module.complexity == "quadratic":
        return
    tensors = [tensor.requires_grad_() for tensor in inputs(module, batch=1, length=1024, dtype=torch.float32)]
    with LargestOutput() as largest:
        run(module, tensors, None).sum().backward()
    width = max(FEATURE_COUNT, HEAD_SIZE) if module.complexity == "linear" else 4 * 32  # √1024
    assert 0 < largest.numel <= 4 * HEADS * 1024 * width


def counted_operations(module, length):
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, torch.no_grad():
        run(module, inputs(module, batch=1, length=length, dtype=torch.float32), None)
    return counter.get_total_flops()


@over_variants
def test_c8_operations_grow_as_stated(name, features, choices):
    module = mechanism(name, features, choices, dtype=torch.float32, max_position_embeddings=1024)
    counted = counted_operations(module, 512)
    if counted == 0:  # sums and Fourier transforms alone, which nobody counts
        return
    growth = counted_operations(module, 1024) / counted
    limits = {"linear": (0, 2.1), "subquadratic": (2, 3), "quadratic": (3.8, 4.2)}
    low, high = limits[module.complexity]
    assert low <= growth <= high


@over_variants
def test_c8_operations_are_what_the_mechanism_says(name, features, choices):
    """The formula behind the FLOPs of a record, against torch's counter."""
    config = configuration(name, features, choices, max_position_embeddings=512)
    module = mechanism(name, features, choices, dtype=torch.float32, max_position_embeddings=512)
    if module.works_on_heads():
        stated = module.core_flops(config, 512)
    else:
        stated = module.flops(config, 512) - 2 * 512 * config.hidden_size**2 * module.has_output_projection
    assert counted_operations(module, 512) == pytest.approx(stated, rel=0.05)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_num_features_has_an_effect_where_the_mechanism_says_so(name):
    few, many = (mechanism(name, num_features=count) for count in (3, 12))
    shapes = [{key: tensor.shape for key, tensor in module.state_dict().items()} for module in (few, many)]
    tensors = inputs(few, length=40)
    same = shapes[0] == shapes[1] and torch.equal(run(few, tensors, None), run(many, tensors, None))
    assert same is not ATTENTIONS[name].uses_num_features
    count = StudentConfig(attention=name).num_features
    assert (count is None) is same
