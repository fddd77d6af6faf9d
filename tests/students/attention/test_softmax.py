"""Softmax attention: what training in bf16 computes in fp32."""

import torch

from students.attention.ops.masking import softmax_attention


def leaves(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(2, 3, 9, 8, generator=generator).bfloat16() for _ in range(3)]
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def test_training_in_bf16_attends_in_fp32_and_rounds_once():
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    half, wide = leaves(torch.bfloat16), leaves(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        context = softmax_attention(*half, mask)
    expected = softmax_attention(*wide, mask)
    assert torch.equal(context, expected.bfloat16())
    context.float().sum().backward()
    expected.sum().backward()
    for narrow, exact in zip(half, wide, strict=True):
        assert torch.equal(narrow.grad, exact.grad.bfloat16())
