"""The contract of whole models (C1, C2, C10, C11 and what clients ask) in the form of every family of encoders.

A mechanism knows nothing of families, but a model's embeddings and head do. XLM-R's and CamemBERT's students have
RoBERTa's form, and BERT's own is that of the other contract tests. fp64 unless a test says otherwise.
"""

import copy
import functools

import pytest
import torch
from helpers.closeness import assert_close
from helpers.families import FIRST_WORD, batch_for, tiny_classifier
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from students import ATTENTIONS, StudentForSequenceClassification, exact_form, fold_features, student_from_teacher

over_families = pytest.mark.parametrize("kind", ["roberta", "electra", "distilbert", "albert"])
over_mechanisms = pytest.mark.parametrize("attention", ATTENTIONS)
KINDS = ("softmax", "performer", "hedgehog", "nystrom", "longformer", "fnet", "t2r")
"""Exact, by random and by learned features, by landmarks, by a pattern, on hidden states, and one that is folded."""
over_kinds = pytest.mark.parametrize("attention", KINDS)


@functools.cache
def _built(kind, attention, exact_up_to):
    options = dict(ATTENTIONS[attention].small_options)
    settings = {"attention_options": options, "exact_up_to": exact_up_to}
    if ATTENTIONS[attention].uses_num_features:
        settings["num_features"] = 8
    return student_from_teacher(tiny_classifier(kind), layer_map=[0, 1], attention=attention, **settings)[0]


def student(kind, attention, exact_up_to=0, dtype=torch.float64):
    """Return a student of its own in eval mode."""
    return copy.deepcopy(_built(kind, attention, exact_up_to)).to(dtype).eval()


def rows_of(inputs, row, length):
    return {name: values[row : row + 1, :length] for name, values in inputs.items()}


@over_families
@over_mechanisms
def test_neither_batch_nor_padding_counts(kind, attention):
    model = student(kind, attention)
    lengths = [12, 5, 1]
    inputs = batch_for(model, lengths)
    wide = {name: F.pad(values, (0, 7)) for name, values in inputs.items()}
    wide["input_ids"][:, 12:] = model.config.pad_token_id
    with torch.no_grad():
        together, wider = model(**inputs).logits, model(**wide).logits
        for row, length in enumerate(lengths):
            alone = model(**rows_of(inputs, row, length)).logits
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-9)
            torch.testing.assert_close(wider[row : row + 1], alone, rtol=0, atol=1e-9)


@over_families
@over_mechanisms
def test_padding_on_the_left(kind, attention):
    """Families that count positions from padding find them by themselves; the others have to be told."""
    model = student(kind, attention)
    ids = batch_for(model, (10, 10), 10)["input_ids"]
    left = {"input_ids": F.pad(ids, (5, 0), value=model.config.pad_token_id)}
    left["attention_mask"] = F.pad(torch.ones_like(ids), (5, 0))
    if not model.config.position_offset:
        left["position_ids"] = F.pad(torch.arange(10), (5, 0)).expand(2, -1)
    with torch.no_grad():
        states = model(**left, output_hidden_states=True).hidden_states[-1]
        # The pooler reads position 0; compare what it would read at the first real token.
        found = model.classifier(model.bert.pooler(states[:, 5:]))
        torch.testing.assert_close(found, model(ids).logits, rtol=0, atol=1e-9)


@over_families
@over_mechanisms
def test_hidden_states_and_maps_on_request(kind, attention):
    model = student(kind, attention)
    inputs = batch_for(model)
    shapes = []
    for layer in model.bert.encoder.layer:
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output[0].shape)))
    with torch.no_grad():
        plain = model(**inputs)
        told = model(**inputs, output_hidden_states=True)
        assert shapes == [(3, 12, 16), (3, 1, 16), (3, 12, 16), (3, 12, 16)]
        assert [tuple(states.shape) for states in told.hidden_states] == [(3, 12, 16)] * 3
        torch.testing.assert_close(told.logits, plain.logits, rtol=0, atol=1e-10)
        if ATTENTIONS[attention].has_attention_map:
            maps = model(**inputs, output_attentions=True).attentions
            assert [tuple(weights.shape) for weights in maps] == [(3, 2, 12, 12)] * 2
            assert all(weights[1, :, :, 5:].abs().max() == 0 for weights in maps)


@over_families
@over_mechanisms
def test_every_parameter_gets_a_finite_gradient_and_pads_none(kind, attention):
    model = student(kind, attention).train()
    inputs = batch_for(model)
    ids = inputs.pop("input_ids")
    words = model.get_input_embeddings()(ids).detach().requires_grad_()
    outputs = model(**inputs, inputs_embeds=words, labels=torch.tensor([0, 1, 1]), output_hidden_states=True)
    real = inputs["attention_mask"].bool()
    (outputs.loss + outputs.hidden_states[-1][real].tanh().mean()).backward()
    missing = {name for name, each in model.named_parameters() if each.grad is None}
    assert missing == {"bert.embeddings.word_embeddings.weight"}
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)
    assert words.grad[~real].abs().max() == 0
    assert words.grad[real].abs().sum(-1).min() > 0


@over_families
@over_mechanisms
def test_half_precision(kind, attention):
    model = student(kind, attention, dtype=torch.float32)
    inputs = batch_for(model)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.no_grad():
            logits = copy.deepcopy(model).to(dtype)(**inputs).logits
        assert logits.dtype == dtype
        assert logits.isfinite().all()


@over_families
def test_nothing_of_a_new_model_is_left_uninitialised(kind):
    config = _built(kind, "performer", 0).config
    torch.use_deterministic_algorithms(True)  # fills empty tensors with NaN
    try:
        models = [StudentForSequenceClassification(config)]
        models.append(AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16))
    finally:
        torch.use_deterministic_algorithms(False)
    for model in models:
        assert [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()] == []
        assert model(**batch_for(model)).logits.isfinite().all()
        if offset := config.position_offset:
            assert not model.bert.embeddings.position_embeddings.weight[offset - 1].any()


@over_families
@over_kinds
def test_gradient_checkpoints_change_no_gradient(kind, attention):
    model = student(kind, attention).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch_for(model), labels=torch.tensor([0, 1, 1])).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


class LogitsOnly(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


@pytest.mark.filterwarnings("ignore")
@over_families
@pytest.mark.parametrize("attention", ["softmax", "performer", "fnet"])
def test_a_trace_of_an_unpadded_example_obeys_later_masks(kind, attention):
    model = LogitsOnly(student(kind, attention, dtype=torch.float32))
    inputs = batch_for(model.model)
    padded = inputs["input_ids"], inputs["attention_mask"]
    unpadded = padded[0].clamp(min=FIRST_WORD), torch.ones_like(padded[1])
    with torch.no_grad():
        traced = torch.jit.trace(model, unpadded, check_trace=False)
        for each in (unpadded, padded):
            torch.testing.assert_close(traced(*each), model(*each), rtol=0, atol=1e-5)


@over_families
@pytest.mark.parametrize("attention", ["performer", "hedgehog", "nystrom"])
def test_short_texts_are_exact_whatever_their_batch(kind, attention):
    model = student(kind, attention, exact_up_to=5)
    exact, inputs = exact_form(model).double(), batch_for(model, (12, 5, 3))
    with torch.no_grad():
        together = model(**inputs).logits
        torch.testing.assert_close(together[1:], exact(**inputs).logits[1:], rtol=0, atol=1e-9)
        alone = model(**rows_of(inputs, 0, 12)).logits
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-9)


@over_families
def test_features_are_folded(kind):
    model = _built(kind, "t2r", 0).eval()
    with torch.no_grad():
        assert_close(fold_features(model)(**batch_for(model)).logits, model(**batch_for(model)).logits)


@over_families
@over_kinds
def test_saved_and_loaded_state_is_bit_equal(kind, attention, tmp_path):
    model = student(kind, attention, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(loaded, StudentForSequenceClassification)
    assert not loaded.training
    state = loaded.state_dict()
    assert {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, state[name])} == set()
    with torch.no_grad():
        assert torch.equal(loaded(**batch_for(model)).logits, model(**batch_for(model)).logits)
