"""Random feature attention: the kernels that it estimates, denominators near zero, its gate and its calibration."""

import math

import pytest
import torch

from students import StudentConfig
from students.attention.rfa import RandomFeatureKernelAttention

HEAD_SIZE = 8


def mechanism(kernel="gaussian", gate=False, num_features=16, **options):
    config = StudentConfig(
        hidden_size=2 * HEAD_SIZE,
        num_attention_heads=2,
        attention="rfa",
        num_features=num_features,
        attention_options={"kernel": kernel, "gate": gate},
        **options,
    )
    module = RandomFeatureKernelAttention(config, layer=0)
    module.initialize_features()
    return module.double()


def inputs(length=11):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, length, HEAD_SIZE, generator=random, dtype=torch.float64) for _ in "qkv"]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_features_estimate_their_kernels(temperature):
    query, key, value = inputs()
    cosine = torch.nn.functional.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1)
    angle = cosine.arccos()
    kernels = {
        "gaussian": (temperature * (cosine - 1)).exp(),
        "arccos": temperature * (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi),
    }
    for kernel, exact in kernels.items():
        module = mechanism(kernel, num_features=40_000, initial_temperature=temperature)
        estimate = module._features(query) @ module._features(key).mT
        torch.testing.assert_close(estimate, exact, rtol=0, atol=0.02)
        torch.testing.assert_close(
            module.attend(query, key, value, None), exact / exact.sum(-1, keepdim=True) @ value, rtol=0, atol=0.05
        )


@pytest.mark.parametrize("kernel", ["gaussian", "arccos"])
def test_norms_of_queries_and_keys_do_not_matter(kernel):
    query, key, value = inputs()
    module = mechanism(kernel)
    torch.testing.assert_close(
        module.attend(3 * query, key / 7, value, None), module.attend(query, key, value, None), rtol=0, atol=1e-12
    )


def test_negative_and_vanishing_sums_stay_finite():
    """So sharp a kernel is estimated with the wrong sign now and then."""
    query, key, value = (tensor.float().requires_grad_() for tensor in inputs(200))
    module = mechanism(num_features=2, initial_temperature=50.0).float()
    weights = module._features(query) @ module._features(key).mT
    total = weights.sum(-1, keepdim=True)
    context = module.attend(query, key, value, None)
    kept = (total.abs() > 0.01 * 200).expand_as(value)
    assert (total < 0).expand_as(value)[kept].any()
    torch.testing.assert_close(context[kept], (weights / total @ value)[kept], rtol=0, atol=1e-3)
    context.square().mean().backward()
    assert context.abs().max() < 1e4
    assert all(tensor.grad.isfinite().all() for tensor in (query, key, value))


@pytest.mark.parametrize("kernel", ["gaussian", "arccos"])
def test_the_gate_closes_keys(kernel):
    query, key, value = inputs()
    module, plain = mechanism(kernel, gate=True), mechanism(kernel)
    assert set(dict(module.named_parameters())) - set(dict(plain.named_parameters())) == {"gate_weight", "gate_bias"}
    # A gate that starts the same for all keys cancels.
    torch.testing.assert_close(
        module.attend(query, key, value, None), plain.attend(query, key, value, None), rtol=0, atol=1e-9
    )
    closed = key[..., 0] < 0
    with torch.no_grad():
        module.gate_weight[:, 0] = 1e4
        module.gate_bias.zero_()
    context = module.attend(query, key, value, None)
    for example, head in ((0, 0), (1, 1)):
        kept = ~closed[example, head]
        few = [tensor[example : example + 1, :, kept] for tensor in (key, value)]
        expected = plain.attend(query[example : example + 1], *few, None)
        torch.testing.assert_close(context[example, head], expected[0, head], rtol=0, atol=1e-9)


def test_gate_passes_padding_and_gradients():
    module = mechanism(gate=True)
    with torch.no_grad():
        module.gate_weight.normal_(generator=torch.Generator().manual_seed(1))
    query, key, value = inputs()
    mask = torch.arange(11) < torch.tensor([[11], [6]])
    alone = module.attend(query[1:, :, :6], key[1:, :, :6], value[1:, :, :6], None)
    torch.testing.assert_close(module.attend(query, key, value, mask)[1:, :, :6], alone, rtol=0, atol=1e-10)
    leaves = [tensor[:1, :, :5].clone().requires_grad_() for tensor in (query, key, value)]
    assert torch.autograd.gradcheck(
        lambda *tensors: module.attend(*tensors[:3], None), (*leaves, *module.feature_parameters())
    )


def test_calibration_takes_the_norms_that_normalisation_lost():
    module = mechanism().float()
    hidden_states = torch.randn(2, 9, 2 * HEAD_SIZE, generator=torch.Generator().manual_seed(2))
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    module.calibrate(hidden_states, mask, target_norm=100.0)
    norms = [
        module.split_heads(linear(hidden_states)).norm(dim=-1).transpose(1, 2)[mask].mean(0)
        for linear in (module.query, module.key)
    ]
    expected = norms[0] * norms[1] / HEAD_SIZE**0.5
    torch.testing.assert_close(module.row_scale.detach().square()[:, 0], expected[:, None].expand(-1, HEAD_SIZE))
    module.calibrate(hidden_states, mask, target_norm=1e-3)
    torch.testing.assert_close(module.row_scale.detach().square(), torch.full((2, 1, HEAD_SIZE), 1e-3))
