"""AFT: how its variants contain each other, how far a token sees, and what is left of the teacher."""

import pytest
import torch
from helpers.tiny_bert import tiny_bert

from students import StudentConfig, student_from_teacher
from students.attention.aft import AFTAttention

VARIANTS = ("simple", "local", "full")


def aft(variant, window=4, rank=3):
    options = {"variant": variant, "window": window, "rank": rank}
    config = StudentConfig(
        hidden_size=16, num_attention_heads=2, attention="aft", attention_options=options, max_position_embeddings=32
    )
    module = AFTAttention(config, layer=0)
    module.initialize_features()
    with torch.no_grad():
        for table in module.parameters(recurse=False):
            table.mul_(10)
    return module.double()


def inputs(length=20):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, length, 8, generator=random, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("variant", ["local", "full"])
def test_without_biases_of_pairs_all_is_simple(variant):
    module = aft(variant)
    expected = aft("simple").attend(*inputs(), None)
    assert (module.attend(*inputs(), None) - expected).abs().max() > 1e-2
    with torch.no_grad():
        module.rows.zero_()
    torch.testing.assert_close(module.attend(*inputs(), None), expected, rtol=0, atol=1e-10)


def test_a_window_over_all_tokens_is_full():
    wide, full = aft("local", window=20), aft("full")
    torch.testing.assert_close(wide.attend(*inputs(), None), full.attend(*inputs(), None), rtol=0, atol=1e-10)


def test_local_sees_tokens_beyond_its_window():
    """Beyond the window w is 0, not minus infinity."""
    module, (query, key, value) = aft("local"), inputs()
    changed = value.clone()
    changed[:, :, -1] += 1
    assert (module.attend(query, key, changed, None) - module.attend(query, key, value, None))[:, :, 0].abs().min() > 0


def test_local_knows_positions_only_within_its_window():
    module, (query, key, value) = aft("local", window=4), inputs()
    swapped = [tensor.clone() for tensor in (key, value)]
    for tensor in swapped:
        tensor[:, :, [18, 19]] = tensor[:, :, [19, 18]]
    before, after = module.attend(query, key, value, None), module.attend(query, *swapped, None)
    torch.testing.assert_close(before[:, :, :15], after[:, :, :15], rtol=0, atol=1e-10)
    assert (before - after)[:, :, 15:].abs().max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_open_gate_and_constant_keys_give_the_mean(variant):
    module, (query, key, value) = aft(variant), inputs()
    if variant != "simple":
        with torch.no_grad():
            module.rows.zero_()
    context = module.attend(torch.full_like(query, 1e3), torch.ones_like(key), value, None)
    torch.testing.assert_close(context, value.mean(2, keepdim=True).expand_as(value), rtol=0, atol=1e-10)


def test_what_a_student_keeps_of_the_teacher():
    teacher = tiny_bert(num_hidden_layers=1)
    student, report = student_from_teacher(teacher, layer_map=[0], attention="aft")
    ours, theirs = (model.bert.encoder.layer[0].attention.self for model in (student, teacher))
    assert torch.equal(ours.value.weight, theirs.value.weight)
    torch.testing.assert_close(ours.key.weight, theirs.key.weight / 8**0.5)
    assert (ours.query.bias == 2).all()
    own = {name.partition(".self.")[2] for name in report.derived}
    assert own == {"query.weight", "query.bias", "key.weight", "key.bias"}
    assert not set(report.derived) & set(report.copied)


def test_limits_are_named():
    with pytest.raises(ValueError, match="33 tokens are more than the 32 positions"):
        aft("full").attend(*inputs(33), None)
    with pytest.raises(ValueError, match="window must be a whole number from 1 to 1,024, got 0"):
        aft("local", window=0)
