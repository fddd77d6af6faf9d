"""BigBird: a plan without duplicates that depends on an example's own length, in blocks as under a dense mask."""

import pytest
import torch
from torch.nn import functional as F

from students import StudentConfig
from students.attention.bigbird import BigBirdAttention
from students.attention.ops.random_blocks import draw_blocks


def bigbird(block=4, global_blocks=1, random_blocks=2, layer=0, seed=0):
    options = {"block": block, "global_blocks": global_blocks, "random_blocks": random_blocks}
    config = StudentConfig(
        attention="bigbird", hidden_size=24, num_attention_heads=3, attention_options=options, projection_seed=seed
    )
    module = BigBirdAttention(config, layer)
    module.initialize_features()
    return module.double()


def heads(length, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, length, 8, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("num_blocks", [1, 2, 4, 8, 64])
def test_random_blocks_are_distinct_and_neither_near_nor_global(num_blocks):
    plan = draw_blocks(num_blocks, seed=0, layer=0, num_heads=3, num_global=2, num_random=3)
    assert plan.shape == (3, num_blocks, 3)
    for head in plan.tolist():
        for block, row in enumerate(head):
            chosen = [other for other in row if other >= 0]
            assert len(set(chosen)) == len(chosen)
            assert all(2 <= other < num_blocks and abs(other - block) > 1 for other in chosen)
            available = sum(abs(other - block) > 1 for other in range(2, num_blocks))
            assert len(chosen) == min(3, available)


def test_heads_layers_and_seeds_draw_differently():
    numbers = {"num_heads": 2, "num_global": 1, "num_random": 3}
    plans = [draw_blocks(32, seed=seed, layer=layer, **numbers) for seed, layer in ((0, 0), (0, 1), (1, 0))]
    assert plans[0].flatten().bincount(minlength=32)[1:].min() > 0  # uniform over the blocks, at a glance
    tables = [plan[head] for plan in plans for head in range(2)]
    assert all(not a.equal(b) for index, a in enumerate(tables) for b in tables[:index])


@pytest.mark.parametrize("length", [5, 9, 16, 33, 70])
@pytest.mark.parametrize("global_blocks", [0, 1, 2])
def test_blocks_equal_one_dense_mask(length, global_blocks):
    module = bigbird(global_blocks=global_blocks)
    tensors = heads(length)
    num_real = torch.tensor([length, length // 2 + 1])
    mask = torch.arange(length) < num_real[:, None]
    allowed = module.pattern(torch.arange(length).expand(2, -1), num_real) & mask[:, None, None]
    expected = F.scaled_dot_product_attention(*tensors, allowed)
    real = mask[:, None, :, None].expand_as(expected)
    torch.testing.assert_close(module.attend(*tensors, mask)[real], expected[real], rtol=0, atol=1e-12)


def test_random_blocks_are_live_and_as_many_as_stated():
    module = bigbird(block=1, global_blocks=1, random_blocks=2)
    seen = module.pattern(torch.arange(32)[None], torch.tensor([32]))[0]
    assert seen[:, 0].all()  # the global block
    assert seen[:, :, 0].all()
    assert (seen.sum(-1)[:, 3:-1] == 3 + 1 + 2).all()
    assert not seen[0].equal(seen[1])


def test_training_sees_what_evaluation_sees():
    module, tensors = bigbird(), heads(50)
    assert torch.equal(module.train().attend(*tensors, None), module.eval().attend(*tensors, None))


def test_all_blocks_allowed_is_softmax():
    tensors = heads(30)
    expected = F.scaled_dot_product_attention(*tensors)
    for module in (bigbird(random_blocks=8), bigbird(global_blocks=8, random_blocks=0), bigbird(block=15)):
        torch.testing.assert_close(module.attend(*tensors, None), expected, rtol=0, atol=1e-12)
        assert module.receptive_field(30).all()


def test_longer_inputs_need_a_longer_plan_and_keep_the_draws():
    module, tensors = bigbird(block=1), heads(600)
    with pytest.raises(ValueError, match="drawn for less than 600 blocks of 1 tokens"):
        module.attend(*tensors, None)
    before = module.plan
    module.extend_positions(600)
    assert torch.equal(module.plan[:, : before.shape[1]], before)
    assert module.attend(*tensors, None).isfinite().all()
