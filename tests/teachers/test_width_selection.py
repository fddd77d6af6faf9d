"""What a narrower student keeps: units that matter, found where they were planted, and what they say of the others."""

from dataclasses import replace

import pytest
import torch
from helpers.small_students import student

from distill.data.batching import TokenizedExamples, collate
from students import student_from_teacher
from students.narrowing import Sizes, narrow_student
from teachers.width_selection import choose_texts, highest, select_width

HEAD = 16
WHOLE = Sizes(32, [2, 2], [64, 64])


@pytest.fixture
def make_source(make_bert):
    def make(num_labels: int = 2, **settings):
        teacher = make_bert(num_labels=num_labels, **settings)
        return student_from_teacher(teacher, layer_map=[0, 1], attention="softmax")[0].eval()

    return make


def logits_of(model, examples) -> torch.Tensor:
    with torch.no_grad():
        return model(**collate(examples, torch.arange(len(examples)).numpy())[0]).logits


def labelled(examples: TokenizedExamples, kind: str) -> TokenizedExamples:
    """Return the examples with scores, or with two labels each, in the place of classes."""
    if kind == "classes":
        return examples
    labels = examples.labels.astype("float32")
    labels = labels if kind == "scores" else torch.tensor(labels)[:, None].repeat(1, 2).numpy()
    return TokenizedExamples(examples.token_ids, examples.token_type_ids, examples.offsets, labels, examples.ids)


@pytest.mark.parametrize("kind", ["classes", "scores", "labels"])
@torch.no_grad()
def test_units_and_heads_that_do_nothing_go_first_and_nothing_is_lost(kind, make_source, make_examples):
    source, examples = make_source(1 if kind == "scores" else 2), labelled(make_examples(), kind)
    alive = [torch.arange(1, 64, 2), torch.arange(20)]
    for layer, units, head in zip(source.bert.encoder.layer, alive, (1, 0), strict=True):
        dead = torch.ones(64, dtype=torch.bool)
        dead[units] = False
        layer.output.dense.weight[:, dead] = 0
        layer.attention.output.dense.weight[:, (1 - head) * HEAD : (2 - head) * HEAD] = 0
    kept = select_width(source, [0, 1], Sizes(32, [1, 1], [32, 20]), examples, seed=0)
    assert [heads.tolist() for heads in kept.heads] == [[1], [0]]
    assert all(torch.equal(found, units) for found, units in zip(kept.units, alive, strict=True))
    assert torch.equal(kept.hidden, torch.eye(32))
    narrow = narrow_student(source, [0, 1], kept)
    assert (narrow.config.num_attention_heads, narrow.config.head_size) == (1, HEAD)
    torch.testing.assert_close(logits_of(narrow, examples), logits_of(source, examples), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_what_two_units_say_together_is_said_by_one(make_source, make_examples):
    source, examples = make_source(), make_examples(200)
    for layer in source.bert.encoder.layer:  # the second half of the units, and the second head, repeat the first
        for dense, half in ((layer.intermediate.dense, 32), (layer.attention.self.value, HEAD)):
            dense.weight[half:], dense.bias[half:] = dense.weight[:half], dense.bias[:half]
        for name in ("query", "key"):
            dense = getattr(layer.attention.self, name)
            dense.weight[HEAD:], dense.bias[HEAD:] = dense.weight[:HEAD], dense.bias[:HEAD]
    kept = select_width(source, [0, 1], Sizes(32, [1, 1], [64, 64]), examples, seed=0)
    whole, narrow = logits_of(source, examples), narrow_student(source, [0, 1], kept)
    torch.testing.assert_close(logits_of(narrow, examples), whole, rtol=0.02, atol=0.02)
    blind = narrow_student(source, [0, 1], type(kept)(kept.hidden, kept.pooled, kept.heads, kept.units))
    assert (logits_of(blind, examples) - whole).abs().max() > 0.1


@torch.no_grad()
def test_dimensions_that_are_always_the_same_go(make_source, make_examples):
    """A dimension that LayerNorm sets to its shift says nothing, but for a constant that the next matrix takes in."""
    source, examples = make_source(), make_examples(200)
    silent = torch.tensor([3, 8, 21, 30])
    embeddings = source.bert.embeddings
    for norm in (module for name, module in source.named_modules() if name.endswith("LayerNorm")):
        norm.weight[silent], norm.bias[silent] = 0, torch.tensor([0.3, -0.5, 0.4, 1.0])
    for name, dense in source.bert.encoder.named_modules():
        if name.endswith("output.dense"):  # nothing is added to them either, so that they shift no mean
            dense.weight[silent], dense.bias[silent] = 0, 0
    for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
        table.weight[:, silent] = 0
    source.classifier.weight[:, 29:] = 0  # as many outputs of the pooler go as there are dimensions less
    kept = select_width(source, [0, 1], Sizes(29, [2, 2], [64, 64]), examples, seed=0)
    apart = kept.hidden[:, silent] - kept.hidden[:, silent[:1]]  # all that is there of them is the mean of all
    assert apart.abs().max() < 1e-4
    assert kept.hidden.sum(1).abs().max() < 1e-4
    torch.testing.assert_close(kept.hidden @ kept.hidden.T, torch.eye(29) - 1 / 29, rtol=0, atol=1e-4)
    assert kept.pooled.tolist() == list(range(29))
    narrow, whole = logits_of(narrow_student(source, [0, 1], kept), examples), logits_of(source, examples)
    blind = narrow_student(source, [0, 1], replace(kept, rebuilt={}, norms={}))
    assert (narrow - whole).square().mean() < 0.3 * (logits_of(blind, examples) - whole).square().mean()
    assert torch.corrcoef(torch.stack([narrow[:, 0], whole[:, 0]]))[0, 1] > 0.9


def test_a_seed_says_what_is_read_and_nothing_else_moves(make_source, make_examples):
    source, examples = make_source().train(), make_examples(30)
    source.eval()
    source.classifier.weight.requires_grad_(False)
    before, state = {name: tensor.clone() for name, tensor in source.state_dict().items()}, torch.get_rng_state()
    one, other = (select_width(source, [1], Sizes(20, [1], [30]), examples, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())
    assert [parameter.requires_grad for parameter in source.classifier.parameters()] == [False, True]
    assert all(parameter.grad is None for parameter in source.parameters())
    for first, second in zip(
        (one.hidden, *one.heads, *one.units), (other.hidden, *other.heads, *other.units), strict=True
    ):
        assert torch.equal(first, second)
    name = "bert.encoder.layer.1.output.dense"
    assert torch.equal(one.rebuilt[name].weight, other.rebuilt[name].weight)
    assert one.rebuilt[name].weight.shape == (64, 30)


@torch.no_grad()
def test_embeddings_that_are_narrower_than_the_layers_stay(make_examples):
    source, examples = student(attention="softmax", embedding_size=8), make_examples(100)
    kept = select_width(source, [0, 1], Sizes(24, [3, 2], [40, 40]), examples, seed=0)
    narrow = narrow_student(source, [0, 1], kept)
    assert narrow.config.embedding_size == 8
    assert torch.equal(narrow.bert.embeddings.LayerNorm.weight, source.bert.embeddings.LayerNorm.weight)
    found, whole = logits_of(narrow, examples), logits_of(source, examples)
    assert torch.corrcoef(torch.stack([found[:, 0], whole[:, 0]]))[0, 1] > 0.3
    assert "bert.embeddings.LayerNorm" not in kept.norms


def test_few_texts_and_long_ones_are_read_up_to_a_limit(make_examples, monkeypatch):
    examples = make_examples(30)
    assert sorted(choose_texts(examples, 0)) == list(range(30))
    assert list(choose_texts(examples, 0)) != list(choose_texts(examples, 1))
    monkeypatch.setattr("teachers.width_selection.NUM_TOKENS", 40)
    few = choose_texts(examples, 0)
    assert 1 <= len(few) < 30
    assert examples.lengths[few].sum() <= 40
    monkeypatch.setattr("teachers.width_selection.NUM_TOKENS", 1)
    assert len(choose_texts(examples, 0)) == 1


def test_of_equal_scores_the_first_are_taken():
    assert highest(torch.tensor([1.0, 3.0, 1.0, 1.0, 2.0]), 3).tolist() == [0, 1, 4]
