"""Contract C1 and C2: what is padded, and what else is in the batch, changes nothing."""

import pytest
import torch
from helpers.contract import configuration, generator, inputs, mask_of, mechanism, over_rows, over_variants, run
from torch.nn import functional as F

from students import StudentForSequenceClassification


def append_rows(tensor, rows):
    """Append (20, d) rows to the tokens of every head or example."""
    return torch.cat([tensor, rows.expand(*tensor.shape[:-2], 20, tensor.shape[-1])], dim=-2)


@over_variants
@pytest.mark.parametrize("masked", [False, True])
def test_c1_padding_changes_nothing(name, features, choices, masked):
    module = mechanism(name, features, choices)
    tensors = inputs(module)
    mask = mask_of([11, 6] if masked else [11, 11], 11)
    garbage = 7 * torch.randn(20, tensors[0].shape[-1], generator=generator(1), dtype=torch.float64)
    longer_mask = F.pad(mask, (0, 20))
    with torch.no_grad():
        expected = run(module, tensors, mask if masked else None)
        for last in (garbage, torch.full_like(garbage, torch.nan)):
            padded = [append_rows(tensor, garbage) for tensor in tensors[:-1]] + [append_rows(tensors[-1], last)]
            difference = run(module, padded, longer_mask)[..., :11, :] - expected
            assert difference[over_rows(mask, difference)].abs().max() < 1e-9


@over_variants
def test_c1_pads_get_no_gradient(name, features, choices):
    module = mechanism(name, features, choices)
    leaves = [tensor.requires_grad_() for tensor in inputs(module, length=9)]
    mask = mask_of([9, 4], 9)
    context = run(module, leaves, mask)
    (context.square() * over_rows(mask, context)).sum().backward()
    for leaf in leaves:
        assert leaf.grad[1, ..., 4:, :].abs().max() == 0
        assert leaf.grad[1, ..., :4, :].abs().max() > 0


@over_variants
def test_c1_left_padding_of_the_whole_model(name, features, choices):
    torch.manual_seed(0)
    model = StudentForSequenceClassification(configuration(name, features, choices)).double().eval()
    input_ids = torch.randint(1, 50, (2, 10), generator=generator(2))
    expected = model(input_ids).logits
    left = model(
        F.pad(input_ids, (5, 0), value=3),
        attention_mask=F.pad(torch.ones(2, 10, dtype=torch.long), (5, 0)),
        position_ids=F.pad(torch.arange(10), (5, 0)).expand(2, -1),
        output_hidden_states=True,
    ).hidden_states[-1]
    # The pooler reads position 0; compare what it would read at the first real token.
    pooled = model.bert.pooler(left[:, 5:])
    torch.testing.assert_close(model.classifier(pooled), expected, rtol=0, atol=1e-9)


@over_variants
def test_c1_an_example_without_real_tokens_is_finite(name, features, choices):
    module = mechanism(name, features, choices)
    leaves = [tensor.requires_grad_() for tensor in inputs(module, length=5)]
    context = run(module, leaves, mask_of([5, 0], 5))
    context.sum().backward()
    assert context.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


@over_variants
def test_c2_examples_do_not_meet(name, features, choices):
    module = mechanism(name, features, choices)
    tensors = inputs(module, batch=3)
    for tensor in tensors:
        tensor[1:] *= 9  # a maximum over the batch would show
    mask = mask_of([7, 11, 3], 11)
    alone = run(module, [tensor[:1] for tensor in tensors], mask[:1])
    torch.testing.assert_close(run(module, tensors, mask)[:1], alone, rtol=0, atol=1e-10)
