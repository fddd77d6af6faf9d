"""A softmax window and features elsewhere: exact limits, exact entries, unbiased estimates, a live linear branch."""

import pytest
import torch
from torch.nn import functional as F

from students import ATTENTIONS, StudentConfig
from students.attention.hedgehog import HedgehogAttention

HEAD_SIZE, LENGTH = 8, 21


def mechanism(name, window, num_features=32, **options):
    config = StudentConfig(
        hidden_size=2 * HEAD_SIZE,
        num_attention_heads=2,
        attention=name,
        num_features=num_features,
        attention_options={"window": window} if name in ("scatterbrain", "hybrid") else {},
        **options,
    )
    module = ATTENTIONS[name](config, layer=0)
    module.initialize_features()
    return module.double()


def inputs(scale=1.0):
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, LENGTH, HEAD_SIZE, generator=random, dtype=torch.float64) for _ in "qkv")
    return query * scale, key * scale, value


def far_pairs(window):
    tokens = torch.arange(LENGTH)
    return (tokens[:, None] - tokens).abs() > window // 2


@pytest.mark.parametrize("name", ["scatterbrain", "hybrid"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_window_over_everything_is_softmax(name, masked):
    mask = torch.arange(LENGTH) < torch.tensor([[LENGTH], [9]]) if masked else torch.ones(2, LENGTH, dtype=torch.bool)
    query, key, value = inputs()
    expected = F.scaled_dot_product_attention(query, key, value, mask[:, None, None])
    context = mechanism(name, 2 * LENGTH).attend(query, key, value, mask if masked else None)
    real = mask[:, None, :, None].expand_as(value)
    torch.testing.assert_close(context[real], expected[real], rtol=0, atol=1e-10)


def test_scatterbrain_without_its_window_is_the_performer():
    """A window of 0 holds the token itself alone, whose estimate is replaced too."""
    query, key, _ = inputs(0.7)
    plain, module = mechanism("performer", 0), mechanism("scatterbrain", 0)
    weights, estimates = module.attention_map(query, key, None), plain.attention_map(query, key, None)
    off = far_pairs(0)
    ratio = (weights / estimates)[..., off].view(2, 2, LENGTH, LENGTH - 1)
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-9, atol=0)


def test_entries_of_the_window_are_exact_relative_to_each_other():
    query, key, _ = inputs()
    weights = mechanism("scatterbrain", 6).attention_map(query, key, None)
    logits = query @ key.mT / HEAD_SIZE**0.5
    near = ~far_pairs(6)
    for row in range(LENGTH):
        ours, exact = weights[:, :, row, near[row]], logits[:, :, row, near[row]].softmax(-1)
        torch.testing.assert_close(ours / ours.sum(-1, keepdim=True), exact, rtol=1e-9, atol=0)


def test_estimates_outside_the_window_are_unbiased_on_the_scale_of_the_window():
    """Relative to the token's own exact weight, the mean over draws tends to that of softmax."""
    query, key, _ = inputs(0.5)
    module = mechanism("scatterbrain", 4, num_features=256, features="redrawn")
    logits = query @ key.mT / HEAD_SIZE**0.5
    exact = (logits - logits.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)).exp()
    ratios = []
    for draw in range(60):
        module.redraw_features(draw)
        weights = module.attention_map(query, key, None).detach()
        ratios.append((weights / weights.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) / exact)[..., far_pairs(4)])
    ratios = torch.stack(ratios)
    assert ratios.std(0).mean() > 0.05
    torch.testing.assert_close(ratios.mean(0), torch.ones_like(ratios[0]), rtol=0, atol=0.2)
    assert abs(float(ratios.mean()) - 1) < 0.01


def test_the_window_takes_error_out_of_the_performer():
    query, key, value = inputs()
    expected = F.scaled_dot_product_attention(query, key, value)
    errors = [
        float((mechanism(name, 8, num_features=64).attend(query, key, value, None) - expected).norm().detach())
        for name in ("performer", "scatterbrain")
    ]
    assert errors[1] < 0.8 * errors[0]


def test_the_linear_branch_of_the_hybrid_counts():
    """Published hybrids were found to bypass it: what stands outside the window must change the output."""
    query, key, value = inputs()
    module = mechanism("hybrid", 8, num_features=2 * HEAD_SIZE)
    context = module.attend(query, key, value, None)
    weights = module.attention_map(query, key, None)
    share = (weights * far_pairs(8)).sum(-1)
    assert share.min() > 0.05
    torch.nn.init.constant_(module.window_logit, 60.0)
    assert (module.attend(query, key, value, None) - context).abs().max() > 1e-3
    torch.nn.init.constant_(module.window_logit, -60.0)
    hedgehog = HedgehogAttention(StudentConfig(hidden_size=16, num_attention_heads=2, num_features=16), layer=0)
    hedgehog.initialize_features()
    features = hedgehog.double().features(query, key, None)
    far = (features[0] @ features[1].mT) * far_pairs(8)
    expected = far / far.sum(-1, keepdim=True) @ value
    torch.testing.assert_close(module.attend(query, key, value, None), expected, rtol=0, atol=1e-9)


def test_the_hybrid_starts_with_a_window_of_a_tenth():
    module = mechanism("hybrid", 4)
    torch.testing.assert_close(module.window_logit.sigmoid(), torch.full((2,), 0.1, dtype=torch.float64))
