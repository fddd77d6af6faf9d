"""Chunked attention is softmax attention, with its gradients, in memory that does not grow with the square."""

import pytest
import torch
from helpers.largest_output import LargestOutput
from torch.nn import functional as F

from students.attention.memory_efficient import chunked_attention


def heads(length, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, length, 8, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize(("query_chunk", "key_chunk"), [(1, 1), (13, 7), (24, 24), (5, 100)])
@pytest.mark.parametrize("masked", ["", "right", "left"])
def test_equals_softmax_with_gradients(query_chunk, key_chunk, masked):
    tensors = heads(24)
    mask = torch.arange(24) < torch.tensor([24, 9])[:, None]
    mask = mask.flip(-1) if masked == "left" else mask  # the first chunks have pads alone
    real = mask if masked else torch.ones_like(mask)
    rows = real[:, None, :, None]
    expected = F.scaled_dot_product_attention(*tensors, real[:, None, None]).masked_fill(~rows, 0)
    result = chunked_attention(*tensors, mask if masked else None, query_chunk, key_chunk).masked_fill(~rows, 0)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
    wanted = torch.autograd.grad(expected.square().sum(), tensors)
    torch.testing.assert_close(torch.autograd.grad(result.square().sum(), tensors), wanted, rtol=0, atol=1e-10)


def test_extreme_logits_in_fp32():
    query, key, value = (tensor.detach() for tensor in heads(48, torch.float32))
    query, key = 60 * query, 60 * key
    expected = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    result = chunked_attention(query, key, value, None, 16, 5)
    # The largest logits are near 10⁴, of which fp32 keeps 10⁻³.
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-2)


def test_no_tensor_grows_with_the_square_of_the_length():
    largest = []
    for length in (256, 512):
        tensors = heads(length, torch.float32)
        with LargestOutput() as record:
            chunked_attention(*tensors, None, 32, 32).sum().backward()
        largest.append(record.numel)
    assert largest[1] <= 2.1 * largest[0]


def test_backward_keeps_no_weights():
    """Saved for the backward pass: what the chunks read, not one weight per pair of tokens."""

    def saved_elements(length):
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        tensors = heads(length, torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            context = chunked_attention(*tensors, None, 32, 32)
        del context
        return sum(storages.values())

    assert saved_elements(512) <= 2.1 * saved_elements(256)
