"""Taylor attention: what the series is, and where its few dimensions start."""

import torch
from helpers.contract import configuration, generator, inputs, mask_of, mechanism
from torch import nn

from students import ATTENTIONS
from students.attention.ops.low_rank import few_dimensions
from students.attention.taylor import series


def test_features_multiply_to_the_series():
    query, key = torch.randn(2, 5, 4, dtype=torch.float64, generator=generator(0))
    product = (query * key).sum(-1)
    torch.testing.assert_close((series(query) * series(key)).sum(-1), 1 + product + product**2 / 2)
    assert series(query).shape == (5, 15)


def test_small_products_are_those_of_softmax():
    module = ATTENTIONS["taylor"](configuration("taylor", choices={"dimensions": 8}), layer=0).double()
    module.initialize_features()  # as many dimensions as a head has: the identity
    query, key, value = inputs(module)
    errors = []
    for size in (0.2, 0.1):
        context = module.attend(size * query, size * key, value, None)
        exact = torch.nn.functional.scaled_dot_product_attention(size * query, size * key, value)
        errors.append((context - exact).square().mean().sqrt().item())
    # The first term that is missing is s³/6, and s is a product of both.
    assert 40 < errors[0] / errors[1] < 90


def low_rank_heads(rank, length=64, shift=0.0):
    """Queries and keys (2, 3, N, 8) whose products have a rank, but for the keys' common shift."""
    basis = torch.linalg.qr(torch.randn(3, 8, 8, generator=generator(1)))[0]
    query, key = torch.randn(2, 2, 3, length, rank, generator=generator(2))
    query, key = query @ basis[:, :rank], key @ (basis[:, :rank] * torch.tensor([2.0, 0.5, 1.0])[:, None, None])
    return query, key + shift


def test_as_many_dimensions_as_products_have_keep_all_of_them():
    query, key = low_rank_heads(rank=3, shift=5.0)
    maps = few_dimensions(query, key, None, 3)
    centred = key - key.mean((0, 2), keepdim=True)
    torch.testing.assert_close(maps.key_mean, key.mean((0, 2)), rtol=1e-4, atol=1e-4)
    kept = (query @ maps.query.mT) @ (centred @ maps.key.mT).mT
    torch.testing.assert_close(kept, query @ centred.mT, rtol=0, atol=0.01)
    # The maps' own is over pairs of all examples, of which those of one example are a part.
    root_mean_square = (query @ centred.mT).square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(maps.root_mean_square, root_mean_square, rtol=0.1, atol=0)


def test_fewer_dimensions_lose_the_least():
    query, key = torch.randn(2, 1, 3, 200, 8, generator=generator(3)) * torch.linspace(0.2, 2, 8)
    centred = key - key.mean((0, 2), keepdim=True)

    def lost(query_map, key_map):
        products = (query @ query_map.mT) @ (centred @ key_map.mT).mT
        return (products - query @ centred.mT).square().mean((0, 2, 3))

    maps = few_dimensions(query, key, None, 3)
    best = lost(maps.query, maps.key)
    _, singular, _ = torch.linalg.svd(query[0] @ centred[0].mT)
    torch.testing.assert_close(best, singular[:, 3:].square().sum(-1) / 200**2, rtol=0.02, atol=0)
    largest = torch.eye(8)[-3:].expand(3, 3, 8)
    assert (best < lost(largest, largest)).all()
    assert (best < lost(0.9 * maps.query, maps.key)).all()


def test_more_dimensions_than_a_head_has_are_empty():
    query, key = low_rank_heads(rank=8)
    maps = few_dimensions(query, key, None, 11)
    assert maps.query.shape == maps.key.shape == (3, 11, 8)
    assert (maps.query[:, 8:] == 0).all()


def test_pads_do_not_count():
    query, key = low_rank_heads(rank=8)
    mask = mask_of([64, 10], 64)
    expected = few_dimensions(query, key, mask, 4)
    for tensor in (query, key):
        tensor[1, :, 10:] = torch.nan
    for one, other in zip(expected, few_dimensions(query, key, mask, 4), strict=True):
        assert torch.equal(one, other)


def calibrated(scale):
    """A mechanism calibrated on a batch of hidden states, and its products s (B, H, N, N)."""
    module = mechanism("taylor", choices={"dimensions": 4})
    for each in (module.query, module.key):
        nn.init.normal_(each.weight, std=scale, generator=generator(5))
    states = torch.randn(4, 40, module.query.in_features, generator=generator(4), dtype=torch.float64) + 1
    module.calibrate(states, None, 1.6)
    query, key = module.split_heads(module.query(states)), module.split_heads(module.key(states))
    few = module.query_map(query / module.head_size**0.25), module.key_map(key / module.head_size**0.25)
    return module, query, key, few[0] @ few[1].mT


def test_calibrated_products_stay_where_the_series_is_an_exponential():
    _, _, _, products = calibrated(scale=2.0)
    sizes = products.square().mean((0, 2, 3)).sqrt()
    assert ((sizes > 0.8) & (sizes < 1.2)).all()
    assert products.mean((2, 3)).abs().max() < 0.5  # the keys' mean is gone


def test_calibrated_small_products_keep_their_size():
    module, query, key, products = calibrated(scale=0.1)
    centred = key - key.mean((0, 2), keepdim=True)
    exact = query @ centred.mT / module.head_size**0.5
    assert (products - exact).square().mean() < 0.35 * exact.square().mean()  # four of eight dimensions
    assert exact.square().mean() < 0.5


def test_a_batch_without_real_tokens_leaves_numbers():
    module = mechanism("taylor")
    states = torch.randn(2, 5, module.query.in_features, generator=generator(4), dtype=torch.float64)
    module.calibrate(states, torch.zeros(2, 5, dtype=torch.bool), 1.6)
    assert all(parameter.isfinite().all() for parameter in module.parameters())
