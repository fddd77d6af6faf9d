"""Causal windows, patterns and memories of other sizes than the contract's, cut at random; and what is kept."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.contract import configuration, mechanism

from students import ATTENTIONS, StudentModel

SIZES = [
    *[("memory_efficient", {"chunk": chunk}) for chunk in (1, 7, 128)],
    *[("knn", {"neighbours": count}) for count in (0, 1, 5, 100)],
    *[
        ("longformer", {"window": window, "global_tokens": count})
        for window, count in [(0, 1), (0, 0), (6, 0), (10, 3), (200, 2), (6, 100)]
    ],
    *[("sparse", {"pattern": "strided", "stride": stride}) for stride in (1, 5, 61, 100)],
    *[("sparse", {"pattern": "fixed", "stride": 5, "summary_tokens": count}) for count in (1, 5)],
    *[("transformer_xl", {"segment": 6, "memory": memory}) for memory in (0, 6, 18, 90)],
    ("transformer_xl", {"segment": 1, "memory": 3}),
    *[
        ("compressive", {"segment": 6, "memory": memory, "compressed": slots, "rate": rate})
        for memory, slots, rate in [(0, 2, 3), (6, 4, 3), (12, 12, 2), (6, 0, 2), (0, 6, 1), (6, 2, 6), (0, 60, 3)]
    ],
    *[("lsra", {"convolution": kind}) for kind in ("light", "dynamic")],
    ("scaling", {"modules": 4}),
]
over_sizes = pytest.mark.parametrize(
    ("name", "options"), SIZES, ids=[f"{name}-{'-'.join(map(str, options.values()))}" for name, options in SIZES]
)


def causal(name, options, layer=1):
    """A mechanism of the second layer: memory Transformers that do not look back would look ahead there."""
    kept = mechanism(name, choices=options, causal=True)
    module = ATTENTIONS[name](configuration(name, choices=options, causal=True), layer=layer)
    module.initialize_features()
    kernels = ("taps", "kernel.weight", "kernel.bias")  # their size differs between layers
    weights = {key: value for key, value in kept.state_dict().items() if key not in kernels}
    module.load_state_dict(weights, strict=False)
    return module.double().eval()


def states(length=61):
    return torch.randn(2, length, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@over_sizes
def test_equals_the_naive_form_with_gradients(name, options):
    module, hidden_states = causal(name, options), states().requires_grad_()
    fast, naive = module(hidden_states)[0], module.naive_mix_causal(hidden_states)
    assert_close(fast, naive)
    gradients = [torch.autograd.grad(result.square().sum(), hidden_states)[0] for result in (fast, naive)]
    assert_close(*gradients)


@over_sizes
@pytest.mark.parametrize("seed", range(4))
def test_parts_of_any_size_are_the_whole(name, options, seed):
    module, hidden_states = causal(name, options), states()
    whole, last = module(hidden_states)
    borders = torch.randperm(60, generator=torch.Generator().manual_seed(seed))[: 3 + 4 * seed].sort().values + 1
    parts, state = [], None
    for part in hidden_states.tensor_split(borders, dim=1):
        context, state = module(part, None, state)
        parts.append(context)
    assert_close(torch.cat(parts, dim=1), whole)
    assert [tensor.shape for tensor in state] == [tensor.shape for tensor in last]
    for tensor, expected in zip(state, last, strict=True):
        assert tensor.numel() == 0 or torch.allclose(tensor, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["transformer_xl", "compressive"])
def test_a_carried_memory_gets_no_gradient(name):
    module, hidden_states = causal(name, {}), states(20).requires_grad_()
    _, state = module(hidden_states[:, :10])
    assert not any(tensor.requires_grad for tensor in state)
    module(hidden_states[:, 10:], None, state)[0].sum().backward()
    assert (hidden_states.grad[:, :10] == 0).all()
    assert (hidden_states.grad[:, 10:] != 0).any()


def test_uncompressed_slots_are_more_memory():
    module = causal("compressive", {"segment": 4, "memory": 4, "compressed": 8, "rate": 1})
    longer = causal("transformer_xl", {"segment": 4, "memory": 12})
    longer.load_state_dict(module.state_dict(), strict=False)
    with torch.no_grad():
        module.compression.initialize()
    assert_close(module(states())[0], longer(states())[0])


def test_a_reformer_gives_the_newest_tokens_what_the_text_so_far_does():
    module, hidden_states = causal("reformer", {}), states()
    _, state = module(hidden_states[:, :40])
    newest, _ = module(hidden_states[:, 40:50], None, state)
    assert_close(newest, module(hidden_states[:, :50])[0][:, 40:])


def test_scaling_starts_with_a_convolution_that_does_nothing():
    module = ATTENTIONS["scaling"](configuration("scaling", causal=True), layer=0)
    module.initialize_features()
    layer, hidden_states = module.query, states().float()
    weight = (layer.modules_weight.unsqueeze(-1) * layer.channels_weight.unsqueeze(1)).flatten(1)
    assert_close(layer(hidden_states), hidden_states @ weight)


@pytest.mark.parametrize("name", ["longformer", "transformer_xl", "compressive", "lsra", "scaling", "sparse"])
def test_a_causal_model_has_the_same_parameters(name):
    shapes = []
    for is_causal in (False, True):
        model = StudentModel(configuration(name, causal=is_causal))
        shapes.append({key: tensor.shape for key, tensor in model.state_dict().items()})
    assert shapes[0] == shapes[1]
