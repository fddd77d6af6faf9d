"""The contract that every attention mechanism signs: its cases are every mechanism, choice and kind of features.

What a mechanism states about itself in its class attributes decides which of the tests C1 to C13 apply to it; they
are in ``students/contract``. Shapes: B batch, N sequence length, H heads, d head size. fp64 unless a test says
otherwise.
"""

import itertools

import pytest
import torch

from students import ATTENTIONS, FEATURES, StudentConfig

HEADS, HEAD_SIZE, FEATURE_COUNT = 2, 8, 16


def variants_of(name):
    """Yield every combination of a mechanism's named choices, kinds of random features included."""
    attention = ATTENTIONS[name]
    choices = {option: values for option, values in attention.options.items() if isinstance(values, tuple)}
    kinds = FEATURES if attention.has_random_features else FEATURES[:1]
    for features, *values in itertools.product(kinds, *choices.values()):
        label = [name, *([features] if attention.has_random_features else []), *values]
        yield pytest.param(name, features, dict(zip(choices, values, strict=True)), id="-".join(label))


VARIANTS = [variant for name in ATTENTIONS for variant in variants_of(name)]
over_variants = pytest.mark.parametrize(("name", "features", "choices"), VARIANTS)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def configuration(name, features="fixed", choices=(), **options):
    sizes = {
        "vocab_size": 50,
        "hidden_size": HEADS * HEAD_SIZE,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "num_features": FEATURE_COUNT,
    }
    small = ATTENTIONS[name].small_options | dict(choices)
    return StudentConfig(attention=name, features=features, attention_options=small, **sizes | options)


def mechanism(name, features="fixed", choices=(), dtype=torch.float64, **options):
    """One mechanism with its parameters off their start, so that a forgotten one shows."""
    torch.manual_seed(0)
    module = ATTENTIONS[name](configuration(name, features, choices, **options), layer=0)
    module.initialize_features()
    with torch.no_grad():
        for index, parameter in enumerate(module.feature_parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(index)))
    return module.to(dtype).eval()


def inputs(module, batch=2, length=11, dtype=torch.float64, seed=0):
    """What the mechanism mixes: queries, keys and values (B, H, N, d), or hidden states (B, N, D); always a list."""
    random = generator(seed)
    if module.works_on_heads():
        shape, count = (batch, module.num_heads, length, module.head_size), 3
    else:
        shape, count = (batch, length, module.num_heads * module.head_size), 1
    return [torch.randn(shape, generator=random, dtype=dtype) for _ in range(count)]


def run(module, tensors, mask):
    """Return what the mechanism makes of :func:`inputs`, in the shape of one of them."""
    return module.attend(*tensors, mask) if module.works_on_heads() else module.mix(*tensors, mask)


def run_naive(module, tensors, mask):
    return module.naive_attend(*tensors, mask) if module.works_on_heads() else module.naive_mix(*tensors, mask)


def over_rows(mask, tensor):
    """Broadcast a (B, N) mask over (B, H, N, d) or (B, N, D)."""
    mask = mask[:, None, :, None] if tensor.dim() == 4 else mask[:, :, None]
    return mask.expand_as(tensor)


def mask_of(lengths, length):
    return torch.arange(length) < torch.tensor(lengths)[:, None]
