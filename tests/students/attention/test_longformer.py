"""Longformer: one masked dense attention in the limit, transformers' own layer, projections that start as copies."""

import pytest
import torch
from torch.nn import functional as F
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from students import StudentConfig, student_from_teacher
from students.attention.longformer import LongformerAttention


def longformer(window, global_tokens, hidden_size=16):
    torch.manual_seed(0)
    options = {"window": window, "global_tokens": global_tokens}
    config = StudentConfig(
        attention="longformer", hidden_size=hidden_size, num_attention_heads=2, attention_options=options
    )
    return LongformerAttention(config, 0).double()


def states(length, hidden_size=16, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, hidden_size, generator=generator, dtype=torch.float64)


def local_heads(module, hidden_states):
    return [module.split_heads(getattr(module, name)(hidden_states)) for name in module.projections]


def merge(context):
    return context.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("window", "global_tokens"), [(8, 0), (10, 3), (2, 1), (96, 0), (0, 1)])
def test_with_copied_global_projections_it_is_one_masked_softmax(window, global_tokens):
    module, hidden_states = longformer(window, global_tokens), states(23)
    for name in module.projections if global_tokens else ():
        getattr(module, f"{name}_global").load_state_dict(getattr(module, name).state_dict())
    position = torch.arange(23)
    allowed = (position[:, None] - position).abs() <= window // 2
    allowed = allowed | (position < global_tokens) | (position[:, None] < global_tokens)
    assert torch.equal(allowed, module.receptive_field(23))
    expected = merge(F.scaled_dot_product_attention(*local_heads(module, hidden_states), allowed))
    torch.testing.assert_close(module(hidden_states)[0], expected, rtol=0, atol=1e-12)


def test_a_wide_window_without_global_tokens_is_softmax():
    module, hidden_states = longformer(48, 0), states(24)
    expected = merge(F.scaled_dot_product_attention(*local_heads(module, hidden_states)))
    torch.testing.assert_close(module(hidden_states)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [32, 64])
def test_equals_transformers_longformer(length):
    module, hidden_states = longformer(16, 2), states(length)
    config = LongformerConfig(
        hidden_size=16, num_attention_heads=2, attention_window=[16], attention_probs_dropout_prob=0.0
    )
    oracle = LongformerSelfAttention(config, 0).double().eval()
    oracle.load_state_dict(module.state_dict())
    mask = torch.arange(length) < torch.tensor([length, length - 11])[:, None]
    is_global = (torch.arange(length) < 2).expand(2, -1)
    # Its attention mask is negative at pads, 0 at local and positive at global tokens.
    kinds = torch.where(mask, torch.where(is_global, 10000.0, 0.0), -10000.0).double()
    with torch.no_grad():
        expected = oracle(
            hidden_states,
            attention_mask=kinds,
            is_index_masked=kinds < 0,
            is_index_global_attn=kinds > 0,
            is_global_attn=True,
        )[0]
        result = module(hidden_states, mask)[0]
    # Its softmax is in fp32, whatever the inputs.
    torch.testing.assert_close(result[mask], expected[mask], rtol=0, atol=1e-6)


def test_global_projections_start_as_the_teachers(make_bert):
    student, report = student_from_teacher(make_bert(), layer_map=[0, 1], attention="longformer")
    attention = student.bert.encoder.layer[1].attention.self
    assert torch.equal(attention.key_global.weight, attention.key.weight)
    assert sum("_global." in name for name in report.derived) == 2 * 6
    assert not any("_global." in name for name in report.new)


@pytest.mark.parametrize("length", [3, 23])
def test_all_projections_have_the_gradients_of_the_naive_form(length):
    module, hidden_states = longformer(6, 2), states(length)
    mask = torch.arange(length) < torch.tensor([length, length // 2 + 1])[:, None]
    weight = torch.randn(hidden_states.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = []
    for mix in (module.mix, module.naive_mix):
        context = mix(hidden_states, mask).masked_fill(~mask.unsqueeze(-1), 0)
        gradients.append(torch.autograd.grad((context * weight).sum(), list(module.parameters())))
    assert len(gradients[0]) == 12
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
