"""The Triton kernel against FAVOR+ in plain torch: in Triton's interpreter on any machine, compiled on a GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from students.attention.ops.favor import favor_attention

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed; it comes with PyTorch for CUDA (pip install triton)"
)

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = """
import sys, torch
from students.attention.ops.favor_triton import favor_in_triton
cases = torch.load(f"{sys.argv[1]}/inputs.pt", weights_only=True)
torch.save({case: favor_in_triton(*inputs) for case, inputs in cases.items()}, f"{sys.argv[1]}/contexts.pt")
"""
SHAPES = [  # batch, heads, tokens, head size, features: odd ones, one token, several shares of keys
    (2, 3, 37, 32, 24),
    (1, 1, 1100, 64, 70),
    (3, 2, 1, 8, 5),
]


def make(shape, dtype=torch.float32, device="cpu"):
    batch, heads, length, head_size, num_features = shape
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, batch, length, heads, head_size, generator=generator).to(device, dtype)
    query, key, value = drawn.transpose(2, 3)
    return query, key, value, torch.randn(heads, num_features, head_size, generator=generator).to(device)


def pads(query, key, value):
    """A mask with a text of half the length, if several also one without a token, and NaN where there is none."""
    mask = torch.ones(query.shape[2], query.shape[0], dtype=torch.bool, device=query.device).T  # in another layout
    mask[0, query.shape[2] // 2 + 1 :] = False
    mask[1:2] = False
    outside = ~mask[:, None, :, None]
    return key.masked_fill(outside, torch.nan), value.masked_fill(outside, torch.nan), mask


CASES = {
    **{(shape, padded): (torch.float32, shape) for shape in SHAPES for padded in (False, True)},
    "half": (torch.bfloat16, SHAPES[0]),
}


def inputs(case):
    """Query, key, value, mask and projection of a case; in half precision one projection for all heads."""
    dtype, shape = CASES[case]
    query, key, value, projection = make(shape, dtype)
    if case == "half":
        return query, key, value, None, projection[0]
    key, value, mask = pads(query, key, value) if case[1] else (key, value, None)
    return query, key, value, mask, projection


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Run all cases in Triton's interpreter, which has to be chosen before Triton is imported."""
    folder = tmp_path_factory.mktemp("interpreted")
    torch.save({case: inputs(case) for case in CASES}, folder / "inputs.pt")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], env=environment, check=True, timeout=240)
    return torch.load(folder / "contexts.pt", weights_only=True)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_interpreted_it_agrees(interpreted, shape, padded):
    expected, context = favor_attention(*inputs((shape, padded))), interpreted[shape, padded]
    assert (context - expected).abs().max() < 1e-5 * expected.abs().max()
    assert context.transpose(1, 2).is_contiguous()


def test_a_shared_projection_and_half_precision(interpreted):
    query, key, value, mask, projection = inputs("half")
    expected, context = (
        favor_attention(query.float(), key.float(), value.float(), mask, projection),
        interpreted["half"],
    )
    assert context.dtype == torch.bfloat16
    assert (context - expected).abs().max() < 2**-7 * expected.abs().max()  # 8 bits, cut off by the interpreter


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [*SHAPES, (4, 12, 4096, 64, 128)])
def test_on_a_gpu_it_agrees_with_the_cpu(shape, dtype):
    from students.attention.ops.favor_triton import favor_in_triton

    query, key, value, projection = make(shape, dtype, "cuda")
    key, value, mask = pads(query, key, value)
    context = favor_in_triton(query, key, value, mask, projection).cpu().double()
    expected = favor_attention(*(each.cpu().double() for each in (query, key, value)), mask.cpu(), projection.cpu())
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    assert (context - expected).abs().max() < tolerance * expected.abs().max()
