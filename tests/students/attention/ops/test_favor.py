"""FAVOR+ against its naive forms, and the four ways in which the published code goes wrong."""

import math

import pytest
import torch
from helpers.largest_output import LargestOutput
from torch import Tensor

from students.attention.ops import chunks, favor
from students.attention.ops.favor import FORMS, favor_attention, favor_attention_map
from students.attention.ops.orthogonal_projection import draw_projection
from students.attention.ops.reference import naive_favor_attention, naive_softmax_attention


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _inputs(
    batch: int, heads: int, length: int, head_size: int, scale: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """fp64 query, key, value in the layout of BERT, (B, N, H, d) seen as (B, H, N, d); seeds no projection uses."""
    shape = (batch, length, heads, head_size)
    drawn = [
        torch.randn(shape, generator=_generator(100 + seed + i), dtype=torch.float64).transpose(1, 2) for i in range(3)
    ]
    return drawn[0] * scale, drawn[1] * scale, drawn[2]


def _mask(batch: int, length: int) -> Tensor:
    """A mask with another number of real tokens in each example, never contiguous in the first."""
    mask = torch.arange(length) < torch.linspace(length, max(1, length // 3), batch).round()[:, None]
    mask[0, length // 2] = length < 2
    return mask


def _assert_naive_with_gradients(inputs: list[Tensor], mask: Tensor | None, projection: Tensor, form: str) -> Tensor:
    """Compare a form's context and all its gradients with the naive one's context, which is returned."""
    context = favor_attention(*inputs, mask, projection, form)
    reference = naive_favor_attention(*inputs, mask, projection)
    assert (context - reference).abs().max() < 1e-10
    upstream = torch.randn(context.shape, generator=_generator(5), dtype=torch.float64)
    gradients = torch.autograd.grad(context, [*inputs, projection], upstream)
    references = torch.autograd.grad(reference, [*inputs, projection], upstream)
    for gradient, expected in zip(gradients, references, strict=True):
        assert (gradient - expected).abs().max() < 1e-9
    return reference


def _relative_error(estimate: Tensor, reference: Tensor) -> float:
    return float((estimate.double() - reference).norm() / reference.norm())


def _published_attention(query: Tensor, key: Tensor, value: Tensor, projection: Tensor, eps: float = 1e-4) -> Tensor:
    """The published stabiliser, for contrast: query maximum, one global key maximum, + eps."""

    def features(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
        scaled = tensor * tensor.shape[-1] ** -0.25
        logits = scaled @ projection.mT
        return (
            logits - scaled.square().sum(-1, keepdim=True) / 2 - logits.detach().amax(dims, keepdim=True)
        ).exp() + eps

    query_features, key_features = features(query, (-1,)), features(key, (-1, -2))
    return query_features @ (key_features.mT @ value) / (query_features @ key_features.sum(-2).unsqueeze(-1))


@pytest.mark.parametrize("scale", [1, 5, 30])
@pytest.mark.parametrize("form", FORMS)
def test_fp32_equals_the_log_space_estimate_at_every_norm(form: str, scale: float) -> None:
    query, key, value = _inputs(1, 2, 33, 16, scale)
    projection = draw_projection(32, 16, _generator())
    reference = naive_favor_attention(query, key, value, None, projection.double())
    estimate = favor_attention(query.float(), key.float(), value.float(), None, projection, form)
    assert _relative_error(estimate, reference) < 1e-4
    if scale > 1:
        assert not _relative_error(_published_attention(query, key, value, projection.double()), reference) < 1e-2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 4, 3), (2, 3, 7, 5, 4), (3, 2, 41, 8, 20), (2, 2, 65, 16, 16)])
def test_every_form_equals_the_naive_one_with_its_gradients(
    form: str, masked: bool, shape: tuple[int, int, int, int, int]
) -> None:
    batch, heads, length, head_size, num_features = shape
    mask = _mask(batch, length) if masked else None
    inputs = [tensor.requires_grad_() for tensor in _inputs(batch, heads, length, head_size)]
    for projection_shape in ((num_features, head_size), (heads, num_features, head_size)):
        projection = torch.randn(projection_shape, generator=_generator(9), dtype=torch.float64, requires_grad=True)
        _assert_naive_with_gradients(inputs, mask, projection, form)


@pytest.mark.parametrize("chunk_elements", [1, 100, 250, 600])
@pytest.mark.parametrize("kept_elements", [0, 2**24])
def test_chunks_and_recomputed_features_change_nothing(
    monkeypatch: pytest.MonkeyPatch, chunk_elements: int, kept_elements: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", chunk_elements)  # 90 features per head, 270 per example
    monkeypatch.setattr(favor, "KEPT_ELEMENTS", kept_elements)
    mask = _mask(5, 9)
    inputs = [tensor.requires_grad_() for tensor in _inputs(5, 3, 9, 4)]
    projection = torch.randn(3, 10, 4, generator=_generator(9), dtype=torch.float64, requires_grad=True)
    reference = _assert_naive_with_gradients(inputs, mask, projection, "linear")
    with torch.no_grad():
        assert (favor_attention(*inputs, mask, projection, "linear") - reference).abs().max() < 1e-10


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("length", [1, 21, 1100])
def test_the_fused_kernels_compute_the_same(masked: bool, per_head: bool, scale: float, length: int) -> None:
    """Without gradients, on a CPU; 1,100 tokens are several of the kernel's blocks."""
    inputs = _inputs(2, 3, length, 8, scale)
    mask = torch.rand(2, length, generator=_generator()) < 0.7 if masked else None
    if mask is not None:
        mask[1] = False
    projection = torch.stack([draw_projection(10, 8, _generator(head)) for head in range(3)]).double()
    projection = projection if per_head else projection[0]
    fused = favor_attention(*inputs, mask, projection, "linear")
    assert torch.equal(fused, favor_attention(*inputs, mask, projection))
    torch.testing.assert_close(fused, favor_attention(*inputs, mask, projection, "two_attention"), rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form: str) -> None:
    inputs = [tensor.requires_grad_() for tensor in _inputs(1, 2, 7, 4)]
    projection = draw_projection(6, 4, _generator()).double().requires_grad_()
    mask = torch.arange(7)[None] < 5

    def attend(query: Tensor, key: Tensor, value: Tensor, rows: Tensor) -> Tensor:
        return favor_attention(query, key, value, mask, rows, form)

    assert torch.autograd.gradcheck(attend, (*inputs, projection))


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing_and_gets_no_gradient(form: str) -> None:
    query, key, value = _inputs(2, 2, 13, 8)
    garbage_query, garbage_key, garbage_value = _inputs(2, 2, 20, 8, scale=7, seed=3)
    garbage_value = torch.full_like(garbage_value, torch.nan)
    padded = [
        torch.cat(pair, 2).requires_grad_()
        for pair in ((query, garbage_query), (key, garbage_key), (value, garbage_value))
    ]
    mask = (torch.arange(33) < 13).expand(2, -1)
    projection = draw_projection(16, 8, _generator()).double()
    context = favor_attention(*padded, mask, projection, form)[:, :, :13]
    assert (context - favor_attention(query, key, value, None, projection, form)).abs().max() < 1e-9
    for gradient in torch.autograd.grad(context.sum(), padded):
        assert torch.equal(gradient[:, :, 13:], torch.zeros_like(gradient[:, :, 13:]))


@pytest.mark.parametrize("form", FORMS)
def test_an_example_without_real_tokens_gives_zeros_and_no_gradient(form: str) -> None:
    inputs = [tensor.requires_grad_() for tensor in _inputs(2, 2, 9, 8)]
    mask = torch.tensor([[True] * 9, [False] * 9])
    context = favor_attention(*inputs, mask, draw_projection(16, 8, _generator()).double(), form)
    assert torch.equal(context[1], torch.zeros_like(context[1]))
    for gradient in torch.autograd.grad(context.square().sum() + context.sum(), inputs):
        assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
        assert gradient.isfinite().all()


def test_accuracy_in_the_regime_where_random_features_work() -> None:
    head_size, used, length = 64, 16, 256
    query, key, value = _inputs(1, 8, length, head_size)
    query[..., used:], key[..., used:] = 0, 0
    # mean |x + y|² = 1.6 with x = q / d^¼: 2 · used · scale² / √d
    scale = math.sqrt(1.6 * math.sqrt(head_size) / (2 * used))
    query, key = query * scale, key * scale
    exact = naive_softmax_attention(query, key, value, None)
    uniform = value.mean(2, keepdim=True).expand_as(value)

    def error(num_features: int) -> float:
        projection = draw_projection(num_features, head_size, _generator()).double()
        return float((favor_attention(query, key, value, None, projection) - exact).norm() / (uniform - exact).norm())

    assert error(256) <= 0.7
    assert error(1024) <= 0.4


def test_gradient_to_queries_survives_large_norms() -> None:
    query, key, value = _inputs(1, 2, 64, 64, scale=3)
    query.requires_grad_()
    projection = draw_projection(256, 64, _generator()).double()
    upstream = torch.randn(value.shape, generator=_generator(5), dtype=torch.float64)

    def gradient_norm(context: Tensor) -> float:
        return float(torch.autograd.grad(context, query, upstream)[0].norm())

    of_softmax = gradient_norm(naive_softmax_attention(query, key, value, None))
    assert of_softmax / 100 < gradient_norm(favor_attention(query, key, value, None, projection)) < of_softmax * 100
    assert gradient_norm(_published_attention(query, key, value, projection)) < 1e-9 * of_softmax


def test_the_map_is_row_stochastic_and_is_what_attention_applies() -> None:
    query, key, value = _inputs(2, 2, 11, 8)
    mask = _mask(2, 11)
    projection = draw_projection(12, 8, _generator()).double()
    weights = favor_attention_map(query, key, mask, projection)
    assert (weights.sum(-1) - 1).abs().max() < 1e-12
    assert torch.equal(weights.masked_select(~mask[:, None, None, :]).unique(), torch.zeros(1, dtype=torch.float64))
    assert (weights @ value - favor_attention(query, key, value, mask, projection)).abs().max() < 1e-12


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.25, 1, 5, 30])
def test_bf16_inputs_and_autocast_compute_in_fp32(form: str, scale: float) -> None:
    query, key, value = (tensor.bfloat16() for tensor in _inputs(1, 2, 33, 16, scale))
    projection = draw_projection(24, 16, _generator())
    reference = naive_favor_attention(query.double(), key.double(), value.double(), None, projection.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        context = favor_attention(query, key, value, None, projection, form)
        upcast = favor_attention(query.float(), key.float(), value.float(), None, projection, form)
    assert context.dtype == torch.bfloat16
    assert _relative_error(context, reference) < 4e-3  # the rounding of the result
    assert _relative_error(upcast, reference) < 1e-4


def test_the_linear_form_makes_no_quadratic_tensor() -> None:
    length, num_features = 1024, 16
    inputs = [tensor.requires_grad_() for tensor in _inputs(1, 1, length, 16)]
    projection = draw_projection(num_features, 16, _generator()).double()
    with LargestOutput() as largest:
        torch.autograd.grad(favor_attention(*inputs, None, projection).sum(), inputs)
    assert 0 < largest.numel <= 2 * length * num_features


@pytest.mark.parametrize(("length", "learns", "quadratic"), [(5, True, True), (6, True, False), (5, False, False)])
def test_auto_is_quadratic_in_training_on_the_shortest_texts_alone(
    length: int, learns: bool, quadratic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below 2md / (m + d) / 2 tokens: 16 features of heads of 8 meet at 5.3."""
    inputs, calls, original = _inputs(1, 1, length, 8), [], favor._unnormalised_map
    monkeypatch.setattr(favor, "_unnormalised_map", lambda *given: (calls.append(1), original(*given))[1])
    query, key, value = (tensor.requires_grad_(learns) for tensor in inputs[:3])
    favor_attention(query, key, value, None, torch.randn(16, 8, generator=_generator()).to(query.dtype))
    assert bool(calls) == quadratic


def test_an_unknown_form_names_the_choices_and_the_nearest() -> None:
    query, key, value = _inputs(1, 1, 3, 4)
    with pytest.raises(ValueError, match=r"'linaer' is unknown; choose one of auto, linear.*did you mean 'linear'"):
        favor_attention(query, key, value, None, draw_projection(4, 4, _generator()).double(), "linaer")


def test_export_keeps_batch_and_length_dynamic() -> None:
    class Attention(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, projection: Tensor) -> Tensor:
            return favor_attention(query, key, value, mask, projection)

    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=512)
    operand = {0: batch, 2: length}
    projection = torch.nn.Parameter(draw_projection(8, 4, _generator()).double())
    example = (*_inputs(2, 3, 6, 4), _mask(2, 6), projection)
    shapes = (operand, operand, operand, {0: batch, 1: length}, None)
    exported = torch.export.export(Attention(), example, dynamic_shapes=shapes).module()
    other = (*_inputs(5, 3, 41, 4), _mask(5, 41), projection)
    assert (exported(*other) - favor_attention(*other)).abs().max() < 1e-12
