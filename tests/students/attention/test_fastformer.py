"""Fastformer: its closed form for one token, and that one token changes all others."""

import torch

from students import StudentConfig
from students.attention.fastformer import FastformerAttention


def fastformer():
    torch.manual_seed(0)
    config = StudentConfig(hidden_size=16, num_attention_heads=2, attention="fastformer")
    module = FastformerAttention(config, layer=0)
    module.initialize_features()
    return module.double()


def states(length):
    return torch.randn(2, length, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_token_has_a_closed_form():
    module, hidden_states = fastformer(), states(1)
    query, key = module.query(hidden_states), module.key(hidden_states)
    expected = (key * query * query) @ module.transform.mT + query
    torch.testing.assert_close(module(hidden_states)[0], expected, rtol=0, atol=1e-10)


def test_without_its_transform_tokens_do_not_meet():
    module, hidden_states = fastformer(), states(5)
    changed = hidden_states.clone()
    changed[:, 4] += 1
    assert (module(changed)[0] - module(hidden_states)[0])[:, :4].abs().max() > 1e-6
    with torch.no_grad():
        module.transform.zero_()
    assert (module(changed)[0] - module(hidden_states)[0])[:, :4].abs().max() == 0


def test_weights_of_a_sum_are_softmax_over_all_channels():
    """A head's weights may depend on the channels of the others."""
    module, hidden_states = fastformer(), states(5)
    with torch.no_grad():
        module.query_weight.zero_()
        module.query_weight[0, 15] = 50.0  # a channel of the other head
        query = module.query(hidden_states)
        summed = module._sum_up(query, module.query_weight, None)
    first = query[torch.arange(2), query[..., 15].argmax(1), :8]
    torch.testing.assert_close(summed[:, 0, :8], first, rtol=0, atol=0.2)
    torch.testing.assert_close(summed[:, 0, 8:], query[..., 8:].mean(1), rtol=0, atol=1e-10)
