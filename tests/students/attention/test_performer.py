"""The Performer's further kernels: unbiased where they say so, and less noisy than FAVOR+ where they say so."""

import math

import pytest
import torch
from torch.nn import functional as F

from students import StudentConfig
from students.attention.performer import PerformerAttention, least_variance_spread

HEAD_SIZE = 16


def performer(kernel, num_features=64, **options):
    config = StudentConfig(
        hidden_size=2 * HEAD_SIZE,
        num_attention_heads=2,
        attention="performer",
        num_features=num_features,
        features="redrawn",
        attention_options={"kernel": kernel},
        **options,
    )
    module = PerformerAttention(config, layer=0)
    module.initialize_features()
    return module.double()


def inputs(pair_norm, length=24):
    """Queries and keys with mean |q+k|²/√d near ``pair_norm``, and values."""
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, length, HEAD_SIZE, generator=random, dtype=torch.float64) for _ in "qkv")
    scale = (pair_norm / (2 * HEAD_SIZE**0.5)) ** 0.5
    return query * scale, key * scale, value


def mean_square_error(module, pair_norm, draws=40):
    """Error of the estimated map to softmax's, relative to the error of the uniform map."""
    query, key, _ = inputs(pair_norm)
    exact = (query @ key.mT / HEAD_SIZE**0.5).softmax(-1)
    squares = []
    for draw in range(draws):
        module.redraw_features(draw)
        squares.append((module.attention_map(query, key, None) - exact).square().sum().detach())
    return float(torch.stack(squares).mean() / (exact - exact.mean(-1, keepdim=True)).square().sum())


@pytest.mark.parametrize("kernel", ["favor+", "hyperbolic", "favor++"])
def test_softmax_estimates_converge(kernel):
    few, many = (mean_square_error(performer(kernel, num_features), 1.0, 10) for num_features in (32, 1024))
    assert many < few / 16  # like 1/m, by 32
    assert many < 0.1


def test_relu_features_estimate_another_kernel():
    assert (
        mean_square_error(performer("relu", 4096), 3.0, 4) > 0.2 > mean_square_error(performer("favor+", 4096), 3.0, 4)
    )


def test_hyperbolic_features_are_less_noisy_for_short_vectors():
    """The variance is 1 - e^-S of FAVOR+'s at equal m, S = |x+y|²: 0.39 at S = 0.5."""
    assert mean_square_error(performer("hyperbolic"), 0.5) < 0.7 * mean_square_error(performer("favor+"), 0.5)


def test_favor_plus_plus_is_less_noisy_for_long_vectors():
    plain, spread = (
        mean_square_error(performer(kernel, 256, target_norm=12.0), 12.0) for kernel in ("favor+", "favor++")
    )
    assert spread < 0.9 * plain


@pytest.mark.parametrize("pair_norm", [0.1, 1.6, 12.0])
def test_spread_has_the_least_variance(pair_norm):
    def log_second_moment(spread):
        four, eight = 1 - 4 * spread, 1 - 8 * spread
        return HEAD_SIZE * math.log(four) - HEAD_SIZE / 2 * math.log(eight) + 2 * pair_norm * four / eight

    spread = least_variance_spread(HEAD_SIZE, pair_norm)
    assert spread < 0
    assert log_second_moment(spread) < min(log_second_moment(spread + step) for step in (-1e-3, 1e-3, -spread))


def test_favor_plus_plus_is_unbiased_and_as_noisy_as_predicted():
    """E f(x) f(y) = e^(x·y), and the second moment that the spread minimises, over Gaussian rows."""
    spread, pair_norm = least_variance_spread(HEAD_SIZE, 2.0), 2.0
    random = torch.Generator().manual_seed(1)
    rows = torch.randn(400_000, HEAD_SIZE, generator=random, dtype=torch.float64)
    x = torch.full((HEAD_SIZE,), (pair_norm / 4 / HEAD_SIZE) ** 0.5, dtype=torch.float64)  # |x + x|² = 2
    log_feature = spread * rows.square().sum(-1) + math.sqrt(1 - 4 * spread) * (rows @ x) - x @ x / 2
    estimates = (2 * (log_feature + HEAD_SIZE / 4 * math.log(1 - 4 * spread)) - x @ x).exp()
    assert abs(float((estimates.mean() - 1) / (estimates.std() / len(estimates) ** 0.5))) < 4
    assert float(estimates.var()) < 0.95 * (math.exp(pair_norm) - 1)  # FAVOR+'s


@pytest.mark.parametrize("num_features", [5, 6])
def test_hyperbolic_features_come_in_signs(num_features):
    module = performer("hyperbolic", num_features)
    assert module.projection.shape == (3, HEAD_SIZE)
    query, key, value = inputs(1.6)
    flipped = module.attend(-query, -key, value, None)
    difference = (flipped - module.attend(query, key, value, None)).abs().max()
    assert difference < 1e-12 if num_features == 6 else difference > 1e-3
    assert module.core_flops(StudentConfig(hidden_size=32, num_attention_heads=2, num_features=6), 1) == 8 * 6 * 32


def test_only_the_temperature_and_learned_rows_are_new_parameters():
    for kernel in PerformerAttention.options["kernel"]:
        names = {name for name, _ in performer(kernel).named_parameters() if "." not in name}
        assert names == {"log_temperature"}


def test_an_estimate_of_softmax_knows_its_temperature():
    query, key, value = inputs(1.0)
    for kernel in ("favor+", "hyperbolic", "favor++"):
        module = performer(kernel, 8192, initial_temperature=0.5)
        expected = F.scaled_dot_product_attention(query, key, value, scale=0.5 / HEAD_SIZE**0.5)
        torch.testing.assert_close(module.attend(query, key, value, None), expected, rtol=0, atol=0.03)
