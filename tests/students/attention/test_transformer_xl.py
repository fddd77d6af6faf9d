"""Transformer-XL: streaming over segments, transformers' XLNet, and softmax where nothing relative is learned."""

import pytest
import torch
from helpers.closeness import assert_close
from torch.nn import functional as F
from transformers import XLNetConfig
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

from students import StudentConfig, student_from_teacher
from students.attention.ops.relative import shift_rows
from students.attention.transformer_xl import TransformerXLAttention


def transformer_xl(segment=8, memory=8, layer=0, trained=True):
    torch.manual_seed(0)
    config = StudentConfig(
        attention="transformer_xl",
        hidden_size=24,
        num_attention_heads=3,
        attention_options={"segment": segment, "memory": memory},
    )
    module = TransformerXLAttention(config, layer)
    module.initialize_features()
    with torch.no_grad():
        for parameter in module.feature_parameters() if trained else []:
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.double()


def heads(length, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, length, 8, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("num_queries", [1, 3, 5])
@pytest.mark.parametrize("num_keys", [1, 5, 9])
def test_shifted_rows_are_indexed_by_distance(num_queries, num_keys):
    by_distance = torch.arange(2 * num_queries * (num_queries + num_keys - 1)).view(2, num_queries, -1)
    shifted = shift_rows(by_distance, num_keys)
    for row in range(num_queries):
        for column in range(num_keys):
            assert torch.equal(shifted[:, row, column], by_distance[:, row, column - row + num_queries - 1])


@pytest.mark.parametrize(("segment", "memory"), [(8, 8), (8, 16), (8, 0), (5, 5)])
@pytest.mark.parametrize("length", [8, 30, 32])
def test_streaming_over_segments_is_the_same(segment, memory, length):
    """One segment after the other, each with its own and the last M keys and distances counted one by one."""
    module = transformer_xl(segment, memory)
    query, key, value = heads(length)
    outputs = []
    for start in range(0, length, segment):
        here = slice(start, start + segment)
        seen = slice(max(0, start - memory), start + segment)
        rows, columns = torch.arange(length)[here], torch.arange(length)[seen]
        relative = module.relative_keys(rows[:, None] - columns)
        logits = torch.einsum("bhid,bhjd->bhij", query[:, :, here] + module.content_bias, key[:, :, seen])
        logits = logits + torch.einsum("bhid,hijd->bhij", query[:, :, here] + module.position_bias, relative)
        outputs.append((logits / 8**0.5).softmax(-1) @ value[:, :, seen])
    expected = torch.cat(outputs, dim=2)
    torch.testing.assert_close(module.attend(query, key, value, None), expected, rtol=0, atol=1e-10)


def test_odd_layers_look_to_the_right():
    left, right = transformer_xl(layer=0), transformer_xl(layer=1)
    assert torch.equal(left.receptive_field(32), right.receptive_field(32).flip(0, 1))
    query, key, value = heads(32)
    changed = value.clone()
    changed[:, :, 31] += 1
    assert torch.equal(
        left.attend(query, key, value, None)[:, :, 16], left.attend(query, key, changed, None)[:, :, 16]
    )
    difference = right.attend(query, key, changed, None) - right.attend(query, key, value, None)
    assert difference[:, :, 16].abs().min() > 0
    naive = right.naive_attend(query, key, value, None)
    torch.testing.assert_close(right.attend(query, key, value, None), naive, rtol=0, atol=1e-12)


def test_the_field_grows_by_the_memory_in_every_layer():
    layer = transformer_xl(8, 16).receptive_field(64).double()
    for num_layers, expected in ((1, 24), (2, 40), (3, 56)):
        seen = torch.linalg.matrix_power(layer, num_layers)[-1] > 0
        assert int(seen.sum()) == expected


def test_without_relative_terms_one_segment_is_softmax(make_bert):
    query, key, value = heads(24)
    expected = F.scaled_dot_product_attention(query, key, value)
    module = transformer_xl(24, 0, trained=False)
    torch.testing.assert_close(module.attend(query, key, value, None), expected, rtol=0, atol=1e-12)
    # So a student that reads everything in one segment starts as its teacher.
    teacher = make_bert()
    student, _ = student_from_teacher(teacher, layer_map=[0, 1], attention="transformer_xl")
    input_ids = torch.randint(1, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    assert_close(student.eval()(input_ids).logits, teacher(input_ids).logits)


@pytest.mark.parametrize("masked", [False, True])
def test_equals_transformers_xlnet(masked):
    module = transformer_xl(20, 0)
    config = XLNetConfig(d_model=24, n_head=3, d_inner=8, n_layer=1, vocab_size=5, attn_type="bi", dropout=0.0)
    oracle = XLNetRelativeAttention(config).double().eval()
    with torch.no_grad():
        oracle.r_w_bias.copy_(module.content_bias.squeeze(1))
        oracle.r_r_bias.copy_(module.position_bias.squeeze(1))
        oracle.r.copy_(module.relative.weight.T.reshape(24, 3, 8))
    query, key, value = heads(20)
    mask = torch.arange(20) < torch.tensor([20, 13])[:, None]
    positions = XLNetModel(config).relative_positional_encoding(20, 20, bsz=2).double()
    relative = torch.einsum("ibh,hnd->ibnd", positions, oracle.r)
    pads = (~mask).double().T[None, :, :, None] if masked else None  # 1 at what is masked, (1, key, B, 1)
    inputs = [tensor.permute(2, 0, 1, 3) for tensor in (query, key, value)]
    expected = oracle.rel_attn_core(*inputs, relative, attn_mask=pads).permute(1, 2, 0, 3)
    result = module.attend(query, key, value, mask if masked else None)
    real = mask[:, None, :, None].expand_as(result)
    torch.testing.assert_close(result[real], expected[real], rtol=0, atol=1e-6)


def test_memory_is_whole_segments():
    with pytest.raises(ValueError, match="must be a multiple of the segment, got 12 and 8"):
        transformer_xl(8, 12)
