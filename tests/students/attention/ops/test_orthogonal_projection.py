"""Orthogonal projections: what they estimate is unbiased, and better than by independent rows."""

import math

import pytest
import torch
from torch import Tensor

from students.attention.ops import orthogonal_projection
from students.attention.ops.orthogonal_projection import draw_projection


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _kernel_ratio(head_size: int = 16, num_draws: int = 20_000) -> Tensor:
    """One estimate of exp(x·y) per block of d features, over its true value, for x = y = 1 / (2√d)."""
    x = torch.full((head_size,), 0.5 / math.sqrt(head_size), dtype=torch.float64)
    blocks = draw_projection(head_size * num_draws, head_size, _generator()).double().view(num_draws, head_size, -1)
    return (2 * (blocks @ x - x @ x / 2)).exp().mean(1) / (x @ x).exp()


def _z_score(ratio: Tensor) -> float:
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


def test_the_kernel_estimate_is_unbiased() -> None:
    assert abs(_z_score(_kernel_ratio())) < 4


def test_the_kernel_estimate_is_biased_without_the_sign_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthogonal_projection, "_haar", lambda q_factor, r_factor: q_factor)
    assert abs(_z_score(_kernel_ratio())) > 30


def test_projection_has_orthogonal_blocks_with_gaussian_lengths() -> None:
    head_size = 16
    rows = draw_projection(2 * head_size + 5, head_size, _generator()).double()
    assert rows.shape == (37, head_size)
    assert rows.dtype == torch.float64
    for block in rows.split(head_size):
        gram = block @ block.mT
        assert (gram - gram.diag().diag()).abs().max() < 1e-5
    lengths = draw_projection(20_000, head_size, _generator()).square().sum(1)
    assert lengths.mean() == pytest.approx(head_size, rel=0.02)  # chi-squared: mean d, variance 2d
    assert lengths.var() == pytest.approx(2 * head_size, rel=0.05)


def test_the_same_seed_draws_the_same_projection_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    first = draw_projection(20, 8, _generator(3))
    torch.manual_seed(2)
    assert torch.equal(first, draw_projection(20, 8, _generator(3)))
    assert not torch.equal(first, draw_projection(20, 8, _generator(4)))


def test_error_falls_with_features_and_orthogonal_rows_beat_independent_ones() -> None:
    head_size, num_draws = 16, 8_000
    x = torch.full((head_size,), 0.5 / math.sqrt(head_size), dtype=torch.float64)

    def squared_error(rows: Tensor, num_features: int) -> float:
        estimates = (2 * (rows.double() @ x) - x @ x).exp().view(-1, num_features).mean(1)
        return float((estimates / (x @ x).exp() - 1).square().mean())

    orthogonal = draw_projection(4 * head_size * num_draws, head_size, _generator())
    independent = torch.randn(orthogonal.shape, generator=_generator(), dtype=torch.float64)
    assert squared_error(orthogonal, 64) / squared_error(orthogonal, 16) == pytest.approx(0.25, rel=0.15)
    assert squared_error(orthogonal, 16) < 0.95 * squared_error(independent, 16)
    assert squared_error(independent, 16) == pytest.approx((math.e - 1) / 16, rel=0.05)  # |x + y|² = 1
