"""Causal forms beyond their contract: keys of any norm, and what each of them is at its limits."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.contract import VARIANTS, generator, mechanism

from students import StudentConfig
from students.attention.aft import AFTAttention
from students.attention.ops.running import Scaled, running_sums

EXPONENTIAL = ("performer", "scatterbrain", "aft", "abc")
"""Whose weights are exponentials, summed up in units of something."""
OTHERS = ("linear", "t2r", "hedgehog", "hybrid", "cosformer", "rfa", "lion")


def variants_of(*names):
    cases = [each for each in VARIANTS if each.values[0] in names and each.values[1] != "redrawn"]
    return pytest.mark.parametrize(("name", "features", "choices"), cases)


def heads(length=23, dtype=torch.float64):
    return [torch.randn(2, 2, length, 8, generator=generator(seed), dtype=dtype) for seed in range(3)]


def causal(name, features="fixed", choices=(), dtype=torch.float64, **options):
    return mechanism(name, features, choices, dtype, causal=True, **options)


def in_parts(module, query, key, value, size):
    contexts, state = [], None
    for part in zip(*(tensor.split(size, dim=2) for tensor in (query, key, value)), strict=True):
        context, state = module.attend_causal(*part, state)
        contexts.append(context)
    return torch.cat(contexts, dim=2)


@variants_of(*EXPONENTIAL, *OTHERS)
@pytest.mark.parametrize("factor", [0, 30, 1000, -1000])
@pytest.mark.parametrize("length", [23, 70])
def test_a_last_key_of_any_norm_changes_nothing_before_it(name, features, choices, factor, length):
    module = causal(name, features, choices, torch.float32, max_position_embeddings=128)
    query, key, value = heads(length, torch.float32)
    expected = module.attend_causal(query, key, value, None)[0][:, :, :-1]
    key[:, :, -1] *= factor
    context = module.attend_causal(query, key, value, None)[0]
    assert context.isfinite().all()
    assert torch.equal(context[:, :, :-1], expected)


@variants_of(*EXPONENTIAL)
@pytest.mark.parametrize("size", [1, 5, 70])
def test_keys_of_a_lower_weight_than_any_later_one_still_count(name, features, choices, size):
    """Of exp(w·k - |k|²/2) a long key is a small one, of exp(k) a negative one: far below what fp32 can hold of it."""
    query, key, value = heads(70)
    key[:, :, :40] *= 40
    key[:, :, 40:] *= 0.1
    key[:, :, ::2] = key[:, :, ::2].abs() * torch.where(torch.arange(70) < 40, -1, 1)[::2, None]
    expected = causal(name, features, choices, max_position_embeddings=128).naive_attend_causal(query, key, value)
    module = causal(name, features, choices, torch.float32, max_position_embeddings=128)
    inputs = [tensor.float().requires_grad_() for tensor in (query, key, value)]
    context = in_parts(module, *inputs, size)
    torch.testing.assert_close(context.double(), expected, rtol=0, atol=0.02)
    context.square().sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in inputs)


@pytest.mark.parametrize("length", [1, 2, 5, 8, 21])
def test_running_sums(length):
    logits = 100 * torch.randn(3, length, 4, 1, generator=generator(0), dtype=torch.float64)
    terms = torch.randn(3, length, 4, 2, generator=generator(1), dtype=torch.float64)
    unit, sums = running_sums(Scaled(logits, terms))
    assert_close(unit, logits.cummax(-3).values)
    assert_close(sums * unit.exp(), (logits.exp() * terms).cumsum(-3))


@pytest.mark.parametrize("name", ["scatterbrain", "hybrid"])
def test_in_a_window_over_all_is_softmax(name):
    module = causal(name, choices={"window": 64})
    if name == "scatterbrain":
        torch.nn.init.zeros_(module.log_temperature)
    inputs = heads()
    expected = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
    assert_close(module.attend_causal(*inputs, None)[0], expected)


@pytest.mark.parametrize("name", ["scatterbrain", "hybrid"])
@pytest.mark.parametrize("window", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("size", [1, 3, 23])
def test_windows_of_any_width(name, window, size):
    module = causal(name, choices={"window": window})
    assert_close(in_parts(module, *heads(), size), module.naive_attend_causal(*heads()))


@pytest.mark.parametrize("window", [1, 2, 7, 100])
@pytest.mark.parametrize("size", [1, 3, 23])
def test_aft_windows_of_any_width(window, size):
    module = causal("aft", choices={"variant": "local", "window": window, "rank": 3})
    assert_close(in_parts(module, *heads(), size), module.naive_attend_causal(*heads()))


@pytest.mark.parametrize("variant", ["local", "full"])
@pytest.mark.parametrize("size", [5, 40])
def test_aft_refuses_more_tokens_than_positions(variant, size):
    options = {"variant": variant, "window": 4, "rank": 3}
    module = causal("aft", choices=options, max_position_embeddings=32)
    assert in_parts(module, *heads(32), size).isfinite().all()
    with pytest.raises(ValueError, match="positions of AFT"):
        in_parts(module, *heads(33), size)


@pytest.mark.parametrize("kernel", ["gaussian", "arccos"])
def test_gated_random_features_go_on_from_their_state(kernel):
    module = causal("rfa", choices={"kernel": kernel, "gate": True})
    whole = module.attend_causal(*heads(), None)[0]
    assert_close(in_parts(module, *heads(), 5), whole)
    with torch.no_grad():
        module.gate_weight.zero_()
    ungated = causal("rfa", choices={"kernel": kernel, "gate": False})
    assert (module.attend_causal(*heads(), None)[0] - whole).abs().max() > 1e-3
    if kernel == "arccos":  # no sum of weights near its floor, which knows no gate
        assert_close(module.attend_causal(*heads(), None)[0], ungated.attend_causal(*heads(), None)[0])


def test_the_decays_of_lion_make_the_difference_to_linear_attention():
    module, linear = causal("lion"), causal("linear")
    with torch.no_grad():
        module.log_temperature.copy_(linear.log_temperature)
    expected = linear.attend_causal(*heads(), None)[0]
    assert (module.attend_causal(*heads(), None)[0] - expected).abs().max() > 1e-2
    with torch.no_grad():
        module.decay_weight.zero_()
        module.decay_bias.fill_(50)
    assert_close(module.attend_causal(*heads(), None)[0], expected)


def test_folded_features_are_the_same_causal_form():
    module = causal("t2r")
    states = torch.randn(2, 23, 16, generator=generator(0), dtype=torch.float64)
    expected, state = module(states)
    module.fold()
    folded, folded_state = module(states)
    assert_close(folded, expected)
    assert_close(folded, module.naive_mix_causal(states))
    assert [each.shape for each in folded_state] == [each.shape for each in state]


@variants_of(*EXPONENTIAL, *OTHERS)
def test_a_causal_mechanism_has_no_parameters_of_its_own(name, features, choices):
    both = (mechanism(name, features, choices, causal=causal) for causal in (True, False))
    first, second = ({key: tensor.shape for key, tensor in module.state_dict().items()} for module in both)
    assert first == second


def test_half_precision_sums_up_in_full():
    config = StudentConfig(attention="aft", hidden_size=16, num_attention_heads=2, causal=True)
    module = AFTAttention(config, layer=0).bfloat16()
    context, state = module(torch.randn(1, 5, 16, generator=generator(0)).bfloat16())
    assert context.dtype == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for tensor in state)
