"""Contract of ``exact_up_to``: a text's own length decides, neither its batch nor its padding."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.contract import VARIANTS, configuration, generator, mask_of, mechanism
from torch.nn import functional as F

from students import ATTENTIONS, STUDENTS, StudentConfig, StudentForSequenceClassification, fold_features

LIMIT = 8


def estimates(variant):
    name, _, choices = variant.values
    return ATTENTIONS[name].estimates_softmax_with(choices)


over_estimates = pytest.mark.parametrize(
    ("name", "features", "choices"), [variant for variant in VARIANTS if estimates(variant)]
)


def states_of(module, batch=2, length=11, seed=0):
    return torch.randn(batch, length, module.num_heads * module.head_size, generator=generator(seed)).double()


def softmax_of(module, states, mask=None):
    """What softmax attention makes of the module's own queries, keys and values."""
    query, key, value = (module.split_heads(getattr(module, name)(states)) for name in ("query", "key", "value"))
    wide = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, wide).transpose(1, 2).flatten(2)


def test_mechanisms_of_every_kind_have_it():
    names = {variant.values[0] for variant in VARIANTS if estimates(variant)}
    assert {"performer", "hedgehog", "nystrom", "linformer", "abc", "bigbird", "scatterbrain", "hybrid"} <= names
    assert not names & {"softmax", "fnet", "cosformer", "linear", "aft", "fastformer", "lion", "luna", "lsra"}


@over_estimates
def test_short_texts_get_softmax_and_long_ones_the_estimate(name, features, choices):
    module = mechanism(name, features, choices, exact_up_to=LIMIT)
    pure = mechanism(name, features, choices)
    for length in (1, LIMIT):
        states = states_of(module, length=length)
        torch.testing.assert_close(module(states)[0], softmax_of(module, states), rtol=0, atol=1e-10)
    states = states_of(module, length=LIMIT + 1)
    torch.testing.assert_close(module(states)[0], pure(states)[0], rtol=0, atol=0)
    differs = (module(states)[0] - softmax_of(module, states)).abs().max()
    assert differs > 1e-6 or pure.has_sparse_map or name in ("hybrid", "scatterbrain", "linformer", "nystrom")


@over_estimates
@pytest.mark.parametrize("first_token_only", [False, True])
def test_neither_batch_nor_padding_decides(name, features, choices, first_token_only):
    module = mechanism(name, features, choices, exact_up_to=LIMIT)
    lengths = [11, 5, LIMIT, LIMIT + 1, 1]
    states, mask = states_of(module, batch=len(lengths)), mask_of(lengths, 11)
    padded = F.pad(states.masked_fill(~mask[..., None], 3.0), (0, 0, 0, 20), value=torch.nan)
    mixed = module(padded, F.pad(mask, (0, 20)), first_token_only=first_token_only)[0]
    for row, length in enumerate(lengths):
        seen = 1 if first_token_only else length
        alone = module(states[row : row + 1, :length], first_token_only=first_token_only)[0]
        torch.testing.assert_close(mixed[row : row + 1, :seen], alone[:, :seen], rtol=0, atol=1e-9)


def test_gradients_of_a_mixed_batch_are_those_of_its_texts():
    module = mechanism("performer", "learned", exact_up_to=LIMIT)
    lengths = [11, 5]
    states, mask = states_of(module).requires_grad_(), mask_of(lengths, 11)
    (module(states, mask)[0] * mask[..., None]).square().sum().backward()
    together, states.grad = states.grad, None
    for row, length in enumerate(lengths):
        module(states[row : row + 1, :length])[0].square().sum().backward()
    torch.testing.assert_close(together, states.grad, rtol=0, atol=1e-10)


def test_left_padding_and_texts_of_no_length():
    module = mechanism("performer", exact_up_to=LIMIT)
    states = states_of(module, batch=3, length=12)
    mask = torch.tensor([[0] * 7 + [1] * 5, [1] * 12, [0] * 12]).bool()
    context = module(states, mask)[0]
    assert context.isfinite().all()
    alone = softmax_of(module, states[:1, 7:])
    torch.testing.assert_close(context[:1, 7:], alone, rtol=0, atol=1e-10)


def test_a_compiled_mixed_batch_is_the_eager_one():
    torch.manual_seed(0)
    model = StudentForSequenceClassification(configuration("performer", exact_up_to=LIMIT, num_hidden_layers=1)).eval()
    tokens = torch.randint(1, 50, (3, 12), generator=generator(1))
    shapes = {1: torch.export.Dim("length", max=64)}
    shapes = {"input_ids": shapes, "attention_mask": shapes}
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    exported = torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=False).module()
    for lengths in ([12, 5, 9], [3, 5, 8], [12, 9, 10]):
        mask = mask_of(lengths, 12).long()
        with torch.no_grad():
            assert_close(exported(input_ids=tokens, attention_mask=mask).logits, model(tokens, mask).logits)


@pytest.mark.parametrize("name", STUDENTS)
def test_others_are_refused_with_the_reason(name):
    problem = STUDENTS[name].why_not_exact({})
    assert (problem is None) is STUDENTS[name].estimates_softmax
    if problem is None:
        assert StudentConfig(attention=name, exact_up_to=LIMIT).exact_up_to == LIMIT
    elif name in ATTENTIONS:
        with pytest.raises(ValueError, match=f"exact_up_to {LIMIT}: {name} attention {problem}"):
            StudentConfig(attention=name, exact_up_to=LIMIT)


@pytest.mark.parametrize(
    ("name", "options"), [("performer", {"kernel": "relu"}), ("rfa", {"kernel": "arccos"}), ("rfa", {"gate": True})]
)
def test_options_that_estimate_something_else_are_refused(name, options):
    with pytest.raises(ValueError, match="something else"):
        StudentConfig(attention=name, attention_options=options, exact_up_to=LIMIT)


def test_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="exact_up_to must not be negative"):
        StudentConfig(attention="performer", exact_up_to=-1)


def test_saved_loaded_and_folded_students_answer_alike(tmp_path):
    torch.manual_seed(0)
    tokens = torch.randint(1, 50, (2, 12), generator=generator(1))
    mask = mask_of([12, 6], 12).long()
    for name in ("performer", "t2r"):
        model = StudentForSequenceClassification(configuration(name, num_features=4, exact_up_to=LIMIT)).eval()
        model.save_pretrained(tmp_path / name)
        loaded = StudentForSequenceClassification.from_pretrained(tmp_path / name).eval()
        assert loaded.config.exact_up_to == LIMIT
        assert torch.equal(loaded(tokens, mask).logits, model(tokens, mask).logits)
        assert fold_features(model) is model


def test_operations_of_a_short_text_are_those_of_softmax():
    sizes = {"num_features": 256, "hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 3}
    by_length = StudentConfig(attention="performer", exact_up_to=128, **sizes)
    pure = StudentConfig(attention="performer", **sizes)
    softmax = StudentConfig(attention="softmax", **(sizes | {"num_features": None}))
    assert by_length.attention_flops(128) == softmax.attention_flops(128)
    assert by_length.attention_flops(129) == pure.attention_flops(129)
