"""Formulas against torch's counter on real modules, and hand counts."""

import pytest
import torch
from helpers.tiny_bert import tiny_bert
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config

from distill.models.flops import attention_name, model_flops
from distill.utils.errors import UserError
from students import FrozenLSTMConfig, StudentConfig


@pytest.mark.parametrize("length", [5, 32])
@pytest.mark.parametrize("intermediate_size", [24, 64])
def test_bert_equals_the_counter(length, intermediate_size):
    model = tiny_bert(num_hidden_layers=3, intermediate_size=intermediate_size, num_labels=3)
    ids = torch.zeros(1, length, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert model_flops(model.config, length) == counter.get_total_flops()


def test_performer_core_equals_counted_products():
    length, heads, head_size, num_features = 12, 2, 8, 6
    query, key, value = torch.rand(3, 1, heads, length, head_size)
    projection = torch.rand(num_features, head_size)
    with FlopCounterMode(display=False) as counter:
        (query @ projection.T) @ ((key @ projection.T).mT @ value)
    with FlopCounterMode(display=False) as first:
        (query[..., :1, :] @ projection.T) @ ((key @ projection.T).mT @ value)
    config = performer_config(num_features=num_features)
    # Of the last layer: keys and values of all tokens, the rest of the first.
    rows, feed_forward = 4 * length + 2 * length + 2, length + 1
    dense = 2 * rows * 16**2 + 4 * feed_forward * 16 * 64 + 2 * 16**2 + 2 * 16 * 2
    assert model_flops(config, length) == dense + counter.get_total_flops() + first.get_total_flops()


def performer_config(**changes) -> StudentConfig:
    fields = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 64}
    return StudentConfig(**fields | {"num_labels": 2, "attention": "performer", "num_features": 4} | changes)


def test_break_even_of_the_cores_is_at_twice_the_features():
    for length, sign in ((7, -1), (8, 0), (9, 1)):
        softmax = model_flops(performer_config(attention="softmax"), length)
        performer = model_flops(performer_config(num_features=4, softmax_layers=[1]), length)
        assert (softmax > performer) - (softmax < performer) == sign


def test_softmax_of_one_query_is_linear():
    short, long, longer = (model_flops(performer_config(softmax_layers=[1]), length) for length in (64, 128, 192))
    assert longer - long == long - short


def test_layers_that_kept_softmax_count_as_softmax():
    layers = {name: performer_config(attention=name).mechanism for name in ("softmax", "performer")}
    config = performer_config(softmax_layers=[0])
    mixed, none = model_flops(config, 64), model_flops(performer_config(), 64)
    assert mixed - none == layers["softmax"].flops(config, 64) - layers["performer"].flops(config, 64) > 0


def test_a_student_all_of_whose_layers_keep_softmax_is_called_so():
    """It computes what a softmax student does, whatever the layers that it has not would compute."""
    assert attention_name(performer_config(softmax_layers=[0, -1], exact_up_to=64)) == "softmax"
    assert attention_name(performer_config(num_hidden_layers=1, softmax_layers=[-1])) == "softmax"
    assert attention_name(performer_config(softmax_layers=[-1])) == "performer"
    assert attention_name(performer_config(softmax_layers=[-1], exact_up_to=64)) == "performer, exact up to 64"
    assert attention_name(FrozenLSTMConfig(num_hidden_layers=1, softmax_layers=[-1])) == "lstm"
    assert attention_name(GPT2Config()) == "softmax"


def test_foreign_shapes_are_refused():
    config = GPT2Config()
    with pytest.raises(UserError, match="intermediate_size"):
        model_flops(config, 8)


def test_lstm_student_counts_its_gates_instead_of_the_pooler():
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    frozen = FrozenLSTMConfig(**sizes, intermediate_size=24, num_features=8)
    softmax = StudentConfig(**sizes, intermediate_size=24, attention="softmax")
    gates = 2 * 2 * 4 * 8 * (16 + 8)  # two directions, a multiply-add counts 2
    other_tokens = 11 * (4 * 16**2 + 4 * 12 * 16 + 4 * 16 * 24)  # of the last layer, which an LSTM reads
    expected = model_flops(softmax, 12) + other_tokens - 2 * 16**2 - 2 * 16 * 2 + 12 * gates + 2 * 2 * 8 * 2
    assert model_flops(frozen, 12) == expected
