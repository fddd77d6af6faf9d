"""A batch of texts of unlike length: the same answers, and linear layers that never see its padding."""

import pytest
import torch
from helpers.small_students import student
from torch import Tensor

from students import ATTENTIONS, StudentForSequenceClassification, modeling, unpadded
from students.unpadded import Layout, encode_without_pads, saves_time

LENGTHS = (24, 3, 1, 9)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 50, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return tokens, mask.long()


def padded_logits(model: StudentForSequenceClassification, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Logits of the ordinary way, which gradients take."""
    return model(*batch).logits.detach()


def sharpen(model: StudentForSequenceClassification) -> StudentForSequenceClassification:
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    return model


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_every_mechanism_answers_as_with_padding(attention, batch):
    model = sharpen(student(attention=attention))
    expected = padded_logits(model, batch)
    assert expected.std() > 0.01
    with torch.no_grad():
        assert saves_time(model.bert.encoder, batch[1].bool())
        assert torch.allclose(model(*batch).logits, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"exact_up_to": 8}, {"exact_up_to": 100}, {"softmax_layers": [-1]}])
def test_mixed_students_answer_as_with_padding(options, batch):
    model = sharpen(student(attention="performer", **options))
    expected = padded_logits(model, batch)
    with torch.no_grad():
        assert torch.allclose(model(*batch).logits, expected, atol=1e-5)


def test_linear_layers_read_real_tokens_alone(batch, monkeypatch):
    model = student(attention="softmax")
    read = []
    for layer in model.bert.encoder.layer:
        for linear in (layer.attention.self.query, layer.attention.self.key, layer.intermediate.dense):
            forward = linear.forward
            monkeypatch.setattr(
                linear, "forward", lambda states, forward=forward: (read.append(states.numel()), forward(states))[1]
            )
    width = model.config.hidden_size
    with torch.no_grad():
        model(*batch)
    *others, last_queries, last_keys, last_units = (count // width for count in read)
    assert {*others, last_keys} == {sum(LENGTHS)}
    assert {last_queries, last_units} == {len(LENGTHS)}  # of the last layer the first tokens alone


def test_pads_that_are_not_numbers_change_nothing(batch):
    model = student(attention="performer")
    mask = batch[1].bool()
    states = model.bert.embeddings(batch[0]).detach()
    with torch.no_grad():
        expected = encode_without_pads(model.bert.encoder, states, mask)
        broken = states.masked_fill(~mask[..., None], float("nan"))
        assert torch.equal(encode_without_pads(model.bert.encoder, broken, mask), expected)


def test_where_it_would_not_serve_the_ordinary_way_is_taken(batch, monkeypatch):
    model = student(attention="softmax")
    tokens, mask = batch
    encoder, full = model.bert.encoder, torch.ones_like(mask, dtype=torch.bool)
    assert not saves_time(encoder, mask.bool())  # with gradients
    with torch.no_grad():
        assert saves_time(encoder, mask.bool())
        assert not saves_time(encoder, full.index_fill(1, torch.arange(21, 24), False))  # an eighth is padding
        assert saves_time(encoder, full.index_fill(1, torch.arange(18, 24), False))  # a quarter is
        assert not saves_time(encoder, mask.bool().flip(1))  # no first token in the first column
        handle = encoder.layer[0].intermediate.register_forward_hook(lambda *_: None)
        assert not saves_time(encoder, mask.bool())
        handle.remove()
        monkeypatch.setattr(unpadded, "makes_graph", lambda: True)
        assert not saves_time(encoder, mask.bool())
        monkeypatch.undo()
        encoder.layer[1]._hf_hook = object()
        assert not saves_time(encoder, mask.bool())
        del encoder.layer[1]._hf_hook
        monkeypatch.setattr(modeling, "encode_without_pads", lambda *_: pytest.fail("packed"))
        outputs = model(tokens, mask, output_hidden_states=True)
        assert outputs.hidden_states[-1].shape == (*tokens.shape, model.config.hidden_size)
        assert len(model(tokens, mask, output_attentions=True).attentions) == model.config.num_hidden_layers


def test_packed_tokens_go_back_to_their_places(batch):
    mask = batch[1].bool()
    layout = Layout.of(mask)
    states = torch.randn(*mask.shape, 5)
    packed = layout.pack(states)
    assert packed.shape == (sum(LENGTHS), 5)
    assert layout.bounds.tolist() == [0, 24, 27, 28, 37]
    assert torch.equal(layout.pad(packed), states.masked_fill(~mask[..., None], 0))
    assert torch.equal(layout.first_tokens(packed), states[:, 0])


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_on_a_gpu_in_half_precision_texts_attend_within_their_bounds(attention, batch):
    model = student(attention=attention)
    states, mask = model.bert.embeddings(batch[0]).detach(), batch[1].bool()
    with torch.no_grad():
        expected = encode_without_pads(model.bert.encoder, states, mask)
        model = model.to("cuda", torch.bfloat16)
        states = states.to("cuda", torch.bfloat16)
        found = encode_without_pads(model.bert.encoder, states, mask.cuda()).float().cpu()
    assert (found - expected).abs().max() / expected.abs().max() < 5e-2
