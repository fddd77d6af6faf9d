"""Contract C5, C6 and C12: which tokens a token sees, and with what weight."""

import pytest
import torch
from helpers.contract import HEAD_SIZE, HEADS, generator, inputs, mask_of, mechanism, over_rows, over_variants, run


@over_variants
def test_c5_weights_sum_to_one(name, features, choices):
    module = mechanism(name, features, choices)
    if not (module.row_stochastic and module.works_on_heads()):
        return
    query, key, value = inputs(module)
    mask = mask_of([11, 6], 11)
    real = over_rows(mask, value)
    ones = module.attend(query, key, torch.ones_like(value), mask)[real]
    torch.testing.assert_close(ones, torch.ones_like(ones), rtol=0, atol=1e-10)
    shifted = module.attend(query, key, value + 3, mask)[real]
    torch.testing.assert_close(shifted, module.attend(query, key, value, mask)[real] + 3, rtol=0, atol=1e-10)


@over_variants
def test_c5_attention_map_is_what_attend_applies(name, features, choices):
    module = mechanism(name, features, choices)
    mask = mask_of([11, 6], 11)
    if not module.has_attention_map:
        with pytest.raises(ValueError, match="no attention map"):
            module.attention_map(torch.zeros(2, HEADS, 11, HEAD_SIZE), torch.zeros(2, HEADS, 11, HEAD_SIZE), mask)
        return
    query, key, value = (torch.randn(2, HEADS, 11, HEAD_SIZE, generator=generator(seed)).double() for seed in range(3))
    weights = module.attention_map(query, key, mask)
    assert weights.shape == (2, HEADS, 11, 11)
    assert (weights >= 0).all()
    assert weights[1, :, :, 6:].abs().max() == 0
    real = over_rows(mask, value)
    torch.testing.assert_close(
        (weights @ value)[real], module.attend(query, key, value, mask)[real], rtol=0, atol=1e-10
    )


@over_variants
def test_c5_a_sparse_map_is_zero_where_the_mechanism_says_so(name, features, choices):
    module = mechanism(name, features, choices)
    patterned = module.selects_by_content or module.receptive_field(40) is not None
    assert module.has_sparse_map == (module.has_attention_map and patterned)
    if module.has_sparse_map:
        query, key = (torch.randn(2, HEADS, 40, HEAD_SIZE, generator=generator(seed)).double() for seed in range(2))
        assert (module.attention_map(query, key, None) == 0).any()


@over_variants
def test_c6_permutation(name, features, choices):
    """Positional mechanisms must fail to be equivariant: their positions are live."""
    module = mechanism(name, features, choices)
    tensors = inputs(module)
    order = torch.randperm(11, generator=generator(4))
    permuted = run(module, [tensor[..., order, :] for tensor in tensors], None)
    difference = (permuted - run(module, tensors, None)[..., order, :]).abs().max()
    assert difference < 1e-10 if module.permutation_equivariant else difference > 1e-4


@over_variants
def test_c12_receptive_field(name, features, choices):
    """A token depends exactly on the real tokens that the mechanism says it sees; every one where it says nothing.

    Where the content decides, on some of them.
    """
    module = mechanism(name, features, choices)
    length, real = 24, 20
    # Several examples: features of ReLU leave pairs of tokens without weight by chance.
    batch = 1 if module.selects_by_content else 4
    *others, last = inputs(module, batch=batch, length=length)
    mask = mask_of([real] * batch, length)
    weight = torch.randn(last.shape[-1], generator=generator(1), dtype=torch.float64)  # a plain sum may cancel

    def output(tensor):
        return (run(module, [*others, tensor], mask) @ weight).sum(0)

    jacobian = torch.autograd.functional.jacobian(output, last)
    influence = jacobian.abs().sum(-1)
    # ([H,] N out, B, [H,] N in) to (N out, N in), in any example and head
    influence = influence.sum((0, 2, 3)) if module.works_on_heads() else influence.sum(1)
    seen = module.receptive_field(real)
    seen = torch.ones(real, real, dtype=torch.bool) if seen is None else seen
    depends = influence[:real, :real] > 0
    if module.selects_by_content:
        assert (depends <= seen).all()
        assert not depends.all()
        assert depends.any(-1).all()
    else:
        assert (depends == seen).all()
    assert (influence[:real, real:] == 0).all()
