"""Contract: the first token alone is what it is among all, of a mechanism and of a classifier; and it costs less."""

import pytest
import torch
from helpers.contract import configuration, generator, mask_of, mechanism, over_variants
from helpers.fused_flops import FUSED
from torch.utils.flop_counter import FlopCounterMode

from students import StudentForSequenceClassification


def hidden_states_of(module, length=11):
    return torch.randn(2, length, module.num_heads * module.head_size, generator=generator(0), dtype=torch.float64)


@over_variants
@pytest.mark.parametrize("masked", [False, True])
def test_first_token_is_the_first_row(name, features, choices, masked):
    module = mechanism(name, features, choices)
    states = hidden_states_of(module).requires_grad_()
    mask = mask_of([11, 6], 11) if masked else None
    gradients = []
    for first_token_only in (False, True):
        context = module(states, mask, first_token_only=first_token_only)[0]
        assert context.shape[1] == (1 if first_token_only else 11)
        gradients.append(torch.autograd.grad(context[:, 0].square().sum(), states)[0])
        with torch.no_grad():  # what has no gradient to think of may take another way
            again = module(states, mask, first_token_only=first_token_only)[0]
        torch.testing.assert_close(again, context, rtol=0, atol=1e-10)
        gradients[-1] = torch.cat([gradients[-1], context[:, :1].detach()], dim=1)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


@over_variants
def test_classifier_computes_no_other_token_of_the_last_layer(name, features, choices):
    torch.manual_seed(0)
    model = StudentForSequenceClassification(configuration(name, features, choices)).double().eval()
    tokens = {
        "input_ids": torch.randint(1, 50, (2, 10), generator=generator(2)),
        "attention_mask": mask_of([10, 7], 10),
    }
    shapes = []
    for layer in model.bert.encoder.layer:
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output[0].shape[:2])))
    with torch.no_grad():
        alone, among_all = model(**tokens), model(**tokens, output_hidden_states=True)
    assert shapes == [(2, 10), (2, 1), (2, 10), (2, 10)]
    torch.testing.assert_close(alone.logits, among_all.logits, rtol=0, atol=1e-10)
    assert alone.hidden_states is None
    assert among_all.hidden_states[-1].shape == (2, 10, 16)


@over_variants
def test_first_token_costs_what_the_mechanism_says(name, features, choices):
    config = configuration(name, features, choices, max_position_embeddings=512)
    module = mechanism(name, features, choices, max_position_embeddings=512)
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, torch.no_grad():
        module(hidden_states_of(module, 512)[:1], first_token_only=True)
    stated = module.first_flops(config, 512) - 2 * config.hidden_size**2 * module.has_output_projection
    assert counter.get_total_flops() == pytest.approx(stated, rel=0.05)
    assert not module.mixes_first_alone() or stated < 0.8 * module.flops(config, 512)
