"""A narrower student is what is kept of a wider one: exactly that, and what is known of the rest."""

import pytest
import torch
from helpers.small_students import batch, student

from students import student_from_teacher
from students.narrowing import Kept, Rebuilt, Sizes, channels_of, find_sizes, first_units, narrow_student

NARROW = Sizes(16, [2, 1], [40, 24])
WIDTH = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}


class Config:
    """What `find_sizes` reads of one."""

    hidden_size, num_attention_heads, intermediate_size = 384, 12, 1536


def everything(model, layers=(0, 1)):
    config = model.config
    hidden, heads = torch.eye(config.hidden_size), torch.arange(config.num_attention_heads)
    return Kept(
        hidden,
        torch.arange(config.hidden_size),
        [heads] * len(layers),
        [torch.arange(config.intermediate_size)] * len(layers),
    )


@pytest.mark.parametrize("options", [{}, {"embedding_size": 8}, {"type_vocab_size": 1}], ids=str)
def test_with_everything_kept_it_is_the_same_student(options):
    model = student(attention="softmax", **options)
    same = narrow_student(model, [0, 1], everything(model))
    assert same is not model
    torch.testing.assert_close(same(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize("options", [{}, {"embedding_size": 8}], ids=str)
def test_every_weight_is_the_sources_and_none_is_drawn(options):
    model = student(attention="softmax", **options)
    dimensions = torch.arange(1, 32, 2)
    kept = Kept(
        hidden=torch.eye(32)[dimensions],
        pooled=torch.arange(0, 32, 2),
        heads=[torch.tensor([1, 3]), torch.tensor([2])],
        units=[torch.arange(20, 60), torch.arange(24)],
    )
    state = torch.get_rng_state()
    narrow = narrow_student(model, [0, 1], kept)
    assert torch.equal(torch.get_rng_state(), state)
    there, here = model.bert.encoder.layer, narrow.bert.encoder.layer
    for one, other, heads, units in zip(there, here, kept.heads, kept.units, strict=True):
        channels = channels_of(heads, 8)
        for name in ("query", "key", "value"):
            whole, part = one.attention.self.get_submodule(name), other.attention.self.get_submodule(name)
            assert torch.equal(part.weight, whole.weight[channels][:, dimensions])
            assert torch.equal(part.bias, whole.bias[channels])
        assert torch.equal(
            other.attention.output.dense.weight, one.attention.output.dense.weight[dimensions][:, channels]
        )
        assert torch.equal(other.intermediate.dense.weight, one.intermediate.dense.weight[units][:, dimensions])
        assert torch.equal(other.output.dense.weight, one.output.dense.weight[dimensions][:, units])
        assert torch.equal(other.output.LayerNorm.weight, one.output.LayerNorm.weight[dimensions])
    tables, own = model.bert.embeddings.word_embeddings.weight, narrow.bert.embeddings.word_embeddings.weight
    assert torch.equal(own, tables if options else tables[:, dimensions])
    assert torch.equal(narrow.bert.pooler.dense.weight, model.bert.pooler.dense.weight[kept.pooled][:, dimensions])
    assert torch.equal(narrow.classifier.weight, model.classifier.weight[:, kept.pooled])


def test_layers_are_chosen_on_the_way():
    model = student(attention="softmax", num_hidden_layers=3)
    narrow = narrow_student(model, [0, 2], everything(model))
    fewer, _ = student_from_teacher(model, layer_map=[0, 2], attention="softmax")
    torch.testing.assert_close(narrow(**batch()).logits, fewer.eval()(**batch()).logits)
    assert narrow.config.layer_map == [0, 2]


def test_the_next_matrix_takes_in_what_is_known_of_the_rest():
    model = student(attention="softmax")
    layer = model.bert.encoder.layer[1]
    with torch.no_grad():  # units 32 to 63 say twice what units 0 to 31 say
        layer.intermediate.dense.weight[32:] = layer.intermediate.dense.weight[:32]
        layer.intermediate.dense.bias[32:] = layer.intermediate.dense.bias[:32]
    half = torch.arange(32)
    kept = everything(model)
    repeated = Rebuilt(torch.eye(32).repeat(2, 1), torch.zeros(64))
    name = "bert.encoder.layer.1.output.dense"
    knowing = Kept(kept.hidden, kept.pooled, kept.heads, [torch.arange(64), half], {name: repeated})
    narrow = narrow_student(model, [0, 1], knowing)
    assert narrow.config.intermediate_size == [64, 32]
    torch.testing.assert_close(narrow(**batch()).logits, model(**batch()).logits)
    blind = narrow_student(model, [0, 1], Kept(kept.hidden, kept.pooled, kept.heads, [torch.arange(64), half]))
    assert (blind(**batch()).logits - model(**batch()).logits).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"embedding_size": 8}], ids=str)
def test_states_may_be_turned_where_norms_know_it(options):
    """With all directions, turned, and norms of equal gain that take off no mean, nothing is lost."""
    model = student(attention="softmax", **options)
    torch.manual_seed(0)
    ones = torch.ones(32, 1)
    turned = torch.linalg.qr(torch.cat([ones, torch.randn(32, 31)], 1))[0]
    to_itself = torch.linalg.qr(torch.cat([ones, torch.randn(32, 31)], 1))[0]
    turn = turned @ torch.diag(torch.sign(turned[0] * to_itself[0])) @ to_itself.T  # the mean stays the mean
    kept = everything(model)
    narrow = narrow_student(model, [0, 1], Kept(turn, kept.pooled, kept.heads, kept.units))
    assert not torch.equal(narrow.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
    torch.testing.assert_close(narrow(**batch()).logits, model(**batch()).logits, rtol=1e-3, atol=1e-3)


def test_the_mechanism_takes_over_a_narrower_student():
    narrow = narrow_student(student(attention="softmax"), [0, 1], first_units(NARROW, 32))
    linear, report = student_from_teacher(narrow, layer_map=[0, 1], attention="performer", num_features=8)
    assert (linear.config.hidden_size, linear.config.head_size) == (16, 8)
    assert linear.config.num_attention_heads == [2, 1]
    assert linear.config.intermediate_size == [40, 24]
    assert all("log_temperature" in name or "projection" in name or "redraw" in name for name in report.new)
    assert torch.isfinite(linear(**batch()).logits).all()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((256, 8, 512), Sizes(256, [8, 8], [512, 512])),
        ((None, [12, 6], None), Sizes(384, [12, 6], [1536, 1536])),
        ((None, None, [1, 1536]), Sizes(384, [12, 12], [1, 1536])),
        ((384, 12, [1536, 1536]), None),
        ((None, None, None), None),
    ],
)
def test_sizes_that_are_not_given_are_the_sources(wanted, expected):
    assert find_sizes(Config, [0, 2], *wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ((512, None, None), "hidden_size 512 is above the 384"),
        ((None, 13, None), "num_heads 13 is above the 12"),
        ((None, None, [1536, 1537]), r"intermediate_size \[1536, 1537\] is above the 1536"),
        ((None, [4], None), r"num_heads \[4\] has 1 numbers for 2 layers"),
    ],
)
def test_wider_than_the_source_is_refused(wanted, words):
    with pytest.raises(ValueError, match=words):
        find_sizes(Config, [0, 2], *wanted)
