"""Language models: causality, states, generation, saving, and BERT's own masked model."""

import pytest
import torch
from helpers.contract import generator
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from students import ATTENTIONS, StudentConfig, StudentForCausalLM, StudentForMaskedLM, student_from_teacher

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
CAUSAL = [name for name, each in ATTENTIONS.items() if each.why_not_causal is None]
CONTINUING = [name for name in CAUSAL if ATTENTIONS[name].continues]


def language_model(attention, kind=StudentForCausalLM, **options):
    torch.manual_seed(0)
    small = ATTENTIONS[attention].small_options
    config = StudentConfig(
        attention=attention, attention_options=dict(small), causal=kind.is_causal, **(SIZES | options)
    )
    return kind(config).eval()


def tokens(length=20, batch=2):
    return torch.randint(5, 50, (batch, length), generator=generator(0))


@pytest.mark.parametrize("attention", CAUSAL)
def test_a_later_token_changes_nothing_before_it(attention):
    model = language_model(attention, max_position_embeddings=160)
    # What a chunk of Reformer holds depends on later tokens too; within one chunk nothing does.
    length, place = (150, 100) if model.config.mechanism.continues else (4, 2)
    given = tokens(length)
    other = given.clone()
    other[:, place] = (other[:, place] + 7) % 45 + 5
    with torch.no_grad():
        first, second = model(given).logits, model(other).logits
    torch.testing.assert_close(first[:, :place], second[:, :place], rtol=0, atol=1e-5)
    assert (first[:, place] - second[:, place]).abs().max() > 1e-4


@pytest.mark.parametrize("attention", CONTINUING)
@torch.no_grad()
def test_a_state_goes_on_where_the_text_stopped(attention):
    model, given = language_model(attention), tokens()
    whole = model(given).logits
    first = model(given[:, :13])
    rest = model(given[:, 13:], state=first.state)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole, rtol=0, atol=1e-4)
    assert rest.state.num_tokens == 20


@pytest.mark.parametrize("attention", CAUSAL)
def test_generates_what_reading_all_again_would(attention):
    model, given = language_model(attention), tokens(length=9)
    written = model.generate(given, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    expected = given
    with torch.no_grad():
        for _ in range(6):
            expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(written, expected)


def test_generates_beyond_its_positions_in_constant_memory():
    model, sizes = language_model("linear", max_position_embeddings=16), []
    state, token = None, tokens(length=1)
    with torch.no_grad():
        for _ in range(40):
            output = model(token, state=state)
            token, state = output.logits.argmax(-1), output.state
            sizes.append(sum(tensor.numel() for layer in state.layers for tensor in layer))
    assert set(sizes) == {sizes[0]}
    assert state.num_tokens == 40


def test_beams_take_their_state_along(monkeypatch):
    model, given = language_model("linear", initializer_range=0.5), tokens(length=9)
    options = {"max_new_tokens": 8, "num_beams": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    by_state = model.generate(given, **options)
    monkeypatch.setattr(ATTENTIONS["linear"], "continues", False)
    assert torch.equal(by_state, model.generate(given, **options))
    monkeypatch.undo()
    monkeypatch.setattr(StudentForCausalLM, "_reorder_cache", lambda model, state, beam_idx: state)
    assert not torch.equal(by_state, model.generate(given, **options))


def test_pads_in_front_of_tokens_are_refused():
    model, mask = language_model("softmax"), torch.tensor([[0, 1, 1], [1, 1, 1]])
    with pytest.raises(ValueError, match="pads stand in front"):
        model(tokens(length=3), attention_mask=mask)


def test_pads_behind_a_text_change_nothing():
    model, given = language_model("linear"), tokens()
    mask = torch.ones_like(given)
    mask[:, 15:] = 0
    torch.testing.assert_close(model(given, attention_mask=mask).logits[:, :15], model(given[:, :15]).logits)


@pytest.mark.parametrize(
    ("kind", "auto"), [(StudentForCausalLM, AutoModelForCausalLM), (StudentForMaskedLM, AutoModelForMaskedLM)]
)
def test_saved_and_loaded_it_is_the_same_and_its_matrices_are_one(tmp_path, kind, auto):
    model, given = language_model("linear", kind), tokens()
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is kind
    torch.testing.assert_close(loaded(given).logits, model(given).logits)
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight


def test_the_loss_is_that_of_the_next_token():
    model, given = language_model("softmax"), tokens()
    output = model(given, labels=given)
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), given[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)


def test_with_softmax_it_is_berts_own_masked_model():
    torch.manual_seed(0)
    bert = BertForMaskedLM(BertConfig(**SIZES)).eval()
    student, report = student_from_teacher(bert, layer_map=[0, 1], attention="softmax")
    assert isinstance(student, StudentForMaskedLM)
    assert not report.new
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[1, 12:] = 0
    given = {"input_ids": tokens(), "attention_mask": mask}
    torch.testing.assert_close(student.eval()(**given).logits[0], bert(**given).logits[0], rtol=0, atol=1e-5)


def test_a_shallow_linear_model_starts_from_a_deep_softmax_one():
    deep = language_model("softmax", num_hidden_layers=4)
    shallow, report = student_from_teacher(deep, layer_map=[0, 3], attention="linear")
    assert isinstance(shallow, StudentForCausalLM)
    assert shallow.config.causal
    assert all(".log_temperature" in name for name in report.new)
    source = deep.state_dict()["bert.encoder.layer.3.intermediate.dense.weight"]
    assert torch.equal(shallow.state_dict()["bert.encoder.layer.1.intermediate.dense.weight"], source)
