"""KVT: softmax over the nearest keys, and nothing of the others."""

import pytest
import torch
from torch.nn import functional as F

from students import StudentConfig
from students.attention.knn import KNNAttention


def knn(neighbours):
    config = StudentConfig(
        attention="knn", hidden_size=24, num_attention_heads=3, attention_options={"neighbours": neighbours}
    )
    return KNNAttention(config, 0)


def heads(length):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, length, 8, generator=generator, dtype=torch.float64) for _ in range(3)]


def test_all_neighbours_are_softmax():
    tensors = heads(20)
    expected = F.scaled_dot_product_attention(*tensors)
    for neighbours in (20, 999):
        torch.testing.assert_close(knn(neighbours).attend(*tensors, None), expected, rtol=0, atol=1e-12)


def test_one_neighbour_is_the_nearest_keys_value():
    query, key, value = heads(20)
    nearest = (query @ key.mT).argmax(-1, keepdim=True).expand_as(value)
    torch.testing.assert_close(knn(1).attend(query, key, value, None), value.gather(2, nearest))


@pytest.mark.parametrize(("neighbours", "expected"), [(3, [3, 3, 2]), (0, [10, 8, 2])])
def test_each_row_keeps_its_number_of_neighbours(neighbours, expected):
    query, key, _ = heads(40)
    lengths = torch.tensor([40, 17, 2])
    mask = torch.arange(40) < lengths[:, None]
    weights = knn(neighbours).attention_map(query[:1].expand(3, -1, -1, -1), key[:1].expand(3, -1, -1, -1), mask)
    kept = (weights > 0).sum(-1)
    assert kept.amin((1, 2)).tolist() == kept.amax((1, 2)).tolist() == expected


def test_dropped_keys_get_no_gradient():
    query, key, value = heads(20)
    key.requires_grad_()
    knn(4).attend(query, key, value, None)[0, 0, 0].square().sum().backward()
    nearest = (query[0, 0, 0] @ key[0, 0].T).topk(4).indices
    touched = key.grad[0, 0].abs().sum(-1).nonzero().flatten()
    assert sorted(touched.tolist()) == sorted(nearest.tolist())


def test_ties_are_all_kept():
    query, key, _ = heads(20)
    weights = knn(1).attention_map(query, torch.zeros_like(key), None)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 20))
