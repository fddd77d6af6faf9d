"""What clients of transformers ask of any BERT: its keywords, attention maps, tracing, kernels by name."""

import inspect

import pytest
import torch
from helpers.small_students import SIZES, batch, student
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from students import ATTENTIONS, StudentForSequenceClassification, student_from_teacher

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def small(attention, **options):
    return student(attention=attention, attention_options=dict(ATTENTIONS[attention].small_options), **options)


def test_forward_has_the_keywords_of_bert():
    """PEFT and others hand all of these on, None where they were not given."""
    own = set(inspect.signature(StudentForSequenceClassification.forward).parameters)
    berts = set(inspect.signature(BertForSequenceClassification.forward).parameters) - {"kwargs"}
    assert berts | {"output_attentions", "output_hidden_states"} <= own
    model = student()
    none = dict.fromkeys(("labels", "inputs_embeds", "output_attentions", "output_hidden_states", "return_dict"))
    assert torch.equal(model(**batch(), **none).logits, model(**batch()).logits)
    embedded = {"inputs_embeds": model.get_input_embeddings()(batch()["input_ids"])}
    others = {name: values for name, values in batch().items() if name != "input_ids"}
    output = model(**embedded, **others, labels=torch.tensor([0, 1, 1]), return_dict=False)
    assert torch.equal(output[1], model(**batch()).logits)


@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if ATTENTIONS[name].has_attention_map])
def test_attention_maps_are_what_mixes_the_values(attention):
    model = small(attention).double()
    inputs = batch()
    with torch.no_grad():
        output = model(**inputs, output_attentions=True, output_hidden_states=True)
    assert len(output.attentions) == 2
    mask = inputs["attention_mask"].bool()
    for layer, states, weights in zip(
        model.bert.encoder.layer, output.hidden_states[:-1], output.attentions, strict=True
    ):
        mechanism = layer.attention.self
        assert weights.shape == (3, 4, 10, 10)
        with torch.no_grad():
            value = mechanism.project(states.masked_fill(~mask[..., None], 0))[2]
            mixed = (weights @ value).transpose(1, 2).flatten(2)
            expected = mechanism.mix(states, mask)
        torch.testing.assert_close(mixed[mask], expected[mask], rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(output.logits, model(**inputs, output_hidden_states=True).logits)


def test_maps_of_the_softmax_student_are_berts():
    torch.manual_seed(0)
    bert = BertForSequenceClassification(BertConfig(**SIZES, attn_implementation="eager")).eval()
    twin = student(attention="softmax")
    twin.load_state_dict(bert.state_dict())
    with torch.no_grad():
        expected, found = (model(**batch(), output_attentions=True).attentions for model in (bert, twin))
    mask = batch()["attention_mask"].bool()[:, None, :, None].expand_as(found[0])
    for ours, berts in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[mask], berts[mask], rtol=0, atol=1e-5)


def test_maps_of_short_texts_that_are_attended_exactly():
    linear, both = small("performer"), small("performer", exact_up_to=5)
    exact = student(attention="softmax")
    exact.load_state_dict(both.state_dict(), strict=False)
    with torch.no_grad():
        maps = [model(**batch(), output_attentions=True).attentions[0] for model in (both, linear, exact)]
    torch.testing.assert_close(maps[0][1], maps[2][1])  # of 4 tokens
    torch.testing.assert_close(maps[0][0], maps[1][0])  # of 10
    assert (maps[1][1] - maps[2][1]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if not ATTENTIONS[name].has_attention_map])
def test_where_there_is_no_map_it_is_said(attention):
    model = small(attention)
    with pytest.raises(ValueError, match="has no attention map to return; leave output_attentions out"):
        model(**batch(), output_attentions=True)
    model.config.output_attentions = True
    with pytest.raises(ValueError, match="has no attention map"):
        model(**batch())
    assert model(**batch(), output_attentions=False).attentions is None


def test_how_a_teacher_is_called_is_not_inherited():
    called = {"output_attentions": True, "output_hidden_states": True, "return_dict": False}
    teacher = BertForSequenceClassification(BertConfig(**SIZES, **called))
    built, _ = student_from_teacher(teacher, layer_map=[0], attention="fnet")
    output = built.eval()(**batch())
    assert (output.attentions, output.hidden_states) == (None, None)


class LogitsOnly(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return self.model(**dict(zip(INPUTS, inputs, strict=True))).logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exact_up_to", [0, 5])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_trace_of_an_unpadded_example_obeys_later_masks(attention, exact_up_to):
    if exact_up_to and ATTENTIONS[attention].why_not_exact(ATTENTIONS[attention].small_options):
        return
    model = small(attention, exact_up_to=exact_up_to)
    padded = [batch()[name] for name in INPUTS]
    unpadded = [padded[0], torch.ones_like(padded[1]), padded[2]]
    with torch.no_grad():
        traced = torch.jit.trace(LogitsOnly(model), unpadded, check_trace=False)
        torch.testing.assert_close(traced(*unpadded), LogitsOnly(model)(*unpadded), rtol=0, atol=1e-5)
        torch.testing.assert_close(traced(*padded), LogitsOnly(model)(*padded), rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_kernels_by_name_change_nothing(implementation, tmp_path):
    model = student()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation=implementation)
    assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)
    loaded.set_attn_implementation("eager")
    with pytest.raises((ValueError, ImportError)):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation="flash_attention_2")


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_by_the_constructor(attention, dtype):
    model = AutoModelForSequenceClassification.from_config(small(attention).config, dtype=dtype).eval()
    output = model(**batch())
    assert output.logits.dtype == dtype
    assert output.logits.isfinite().all()
