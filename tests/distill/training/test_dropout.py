"""Dropout while a stage trains: the model's own rates or none, and draws that behave as PyTorch's."""

import pytest
import torch
from torch import nn

from distill.training.dropout import BitwiseDropout, bitwise_dropout_attention, set_dropout
from students import student_from_teacher


def test_rates_are_the_models_own_or_nothing(make_bert):
    student = student_from_teacher(
        make_bert(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2), layer_map=[0, 1], attention="softmax"
    )[0]

    def rates() -> dict[str, float]:
        return {name: module.p for name, module in student.named_modules() if isinstance(module, nn.Dropout)}

    before = rates()
    assert set(before.values()) == {0.3, 0.2}
    set_dropout(student, False)
    assert set(rates().values()) == {0.0}
    set_dropout(student, True)
    assert rates() == before


@pytest.mark.parametrize("as_bool", [True, False])
def test_attention_with_dropout_is_attention_on_average(as_bool):
    query, key, value = torch.randn(3, 2, 4, 12, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 1, 1, 12, dtype=torch.bool)
    mask[1, ..., 5:] = False
    given = mask if as_bool else torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    plain = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)
    torch.manual_seed(0)

    def attend(key=key, value=value):
        return bitwise_dropout_attention(nn.Identity(), query, key, value, given, dropout=0.25, scaling=0.3)[0]

    drawn = torch.stack([attend() for _ in range(1000)])
    deviation = drawn.std(0) / 1000**0.5
    assert ((drawn.mean(0) - plain).abs() < 6 * deviation + 1e-6).all()
    assert (deviation > 0).all()
    padded = ~mask[:, :, 0, :, None]
    state = torch.get_rng_state()
    first = attend()
    torch.set_rng_state(state)
    assert torch.equal(attend(key.masked_fill(padded, 9.0), value.masked_fill(padded, 9.0)), first)


def test_a_teacher_trains_with_it_and_is_saved_without(make_bert, monkeypatch, tmp_path):
    bert, ids = make_bert(attention_probs_dropout_prob=0.25), torch.arange(4, 28).view(2, 12)
    plain = bert(ids).logits
    set_dropout(bert, True)
    torch.testing.assert_close(bert(ids).logits, plain, msg="in eval mode nothing changes")
    bert.save_pretrained(tmp_path)
    assert "bitwise" not in (tmp_path / "config.json").read_text()
    bert.train()
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", None)
    assert not torch.equal(bert(ids).logits, bert(ids).logits)
    set_dropout(bert, False)
    assert bert.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.97])
def test_elements_fall_at_the_rate_and_the_mean_stays(rate, dtype):
    torch.manual_seed(0)
    out = BitwiseDropout(rate)(torch.ones(1000, 1001, dtype=dtype)).float()
    deviation = (rate * (1 - rate) / out.numel()) ** 0.5
    assert abs((out == 0).float().mean().item() - rate) < 5 * deviation
    assert out.unique().numel() == 2
    assert out.max().item() == pytest.approx(1 / (1 - rate), rel=1e-2 if dtype == torch.bfloat16 else 1e-3)


def test_neighbours_fall_independently():
    torch.manual_seed(0)
    fell = (BitwiseDropout(0.5)(torch.ones(1_000_000)) == 0).float()
    for distance in (1, 2, 3, 4, 64):
        both = (fell[:-distance] * fell[distance:]).mean().item()
        assert both == pytest.approx(0.25, abs=0.003)  # six deviations


def test_the_gradient_is_that_of_the_elements_that_were_kept():
    torch.manual_seed(0)
    x = torch.randn(7, 5, 3, requires_grad=True)
    out = BitwiseDropout(0.4)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_draws_follow_the_default_generator():
    dropout, x = BitwiseDropout(0.5), torch.ones(1001)
    state = torch.get_rng_state()
    first, second = dropout(x), dropout(x)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_nothing_falls_while_a_model_answers_or_without_a_rate(rate, training):
    x = torch.randn(100)
    assert torch.equal(BitwiseDropout(rate).train(training)(x), x)


def test_everything_falls_at_rate_one():
    assert BitwiseDropout(1.0)(torch.ones(100)).eq(0).all()
