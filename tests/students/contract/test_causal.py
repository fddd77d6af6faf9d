"""Contract C14: the causal form sees nothing that comes later, is its naive form, and goes on from its state."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.contract import VARIANTS, generator, mechanism, over_variants

from students import ATTENTIONS, StudentConfig

LENGTH = 23
has_causal_form = pytest.mark.parametrize(
    ("name", "features", "choices"), [each for each in VARIANTS if ATTENTIONS[each.values[0]].why_not_causal is None]
)


def causal(name, features="fixed", choices=(), **options):
    return mechanism(name, features, choices, causal=True, **options)


def states_of(module, batch=2, length=LENGTH, seed=0):
    shape = (batch, length, module.num_heads * module.head_size)
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def size_of(state):
    return sum(tensor.numel() for tensor in state)


@has_causal_form
@pytest.mark.parametrize("place", [0, 5, 16, LENGTH - 1])
def test_no_token_sees_a_later_one(name, features, choices, place):
    module = causal(name, features, choices)
    states = states_of(module).requires_grad_()
    module(states)[0][:, place].square().sum().backward()
    assert (states.grad[:, place + 1 :] == 0).all()
    assert (states.grad[:, place] != 0).any()


@has_causal_form
@pytest.mark.parametrize("length", [1, 7, LENGTH, 70])
def test_equals_the_naive_form_with_gradients(name, features, choices, length):
    module = causal(name, features, choices, max_position_embeddings=128)
    states = states_of(module, length=length).requires_grad_()
    fast, naive = module(states)[0], module.naive_mix_causal(states)
    assert_close(fast, naive)
    direction = torch.randn(fast.shape, generator=generator(1), dtype=fast.dtype)
    (of_fast,) = torch.autograd.grad((fast * direction).sum(), states)
    (of_naive,) = torch.autograd.grad((naive * direction).sum(), states)
    assert_close(of_fast, of_naive)


@has_causal_form
@pytest.mark.parametrize("cuts", [[1] * LENGTH, [8, 8, 7], [1, 15, 7]], ids=["one by one", "even", "uneven"])
def test_parts_with_a_state_are_the_whole(name, features, choices, cuts):
    module = causal(name, features, choices)
    if not module.continues:
        return
    states = states_of(module)
    whole, last_of_whole = module(states)
    parts, state = [], None
    for part in states.split(cuts, dim=1):
        context, state = module(part, None, state)
        parts.append(context)
    assert_close(torch.cat(parts, dim=1), whole)
    assert [each.shape for each in state] == [each.shape for each in last_of_whole]


@has_causal_form
def test_the_state_stays_as_large_where_it_says_so(name, features, choices):
    module = causal(name, features, choices, max_position_embeddings=256)
    if not module.continues:
        return
    sizes = [size_of(module(states_of(module, length=length))[1]) for length in (40, 200)]
    assert (sizes[0] == sizes[1]) == module.constant_state


@over_variants
def test_a_mechanism_without_causal_form_says_why(name, features, choices):
    if (reason := ATTENTIONS[name].why_not_causal) is None:
        return
    with pytest.raises(ValueError, match="no causal form") as caught:
        StudentConfig(attention=name, causal=True)
    assert reason in str(caught.value)


def test_a_causal_model_has_no_exact_form_for_short_texts():
    with pytest.raises(ValueError, match="exact_up_to"):
        StudentConfig(attention="performer", causal=True, exact_up_to=8)
