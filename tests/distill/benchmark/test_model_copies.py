"""Prepared copies, extended position tables and inputs for models of several families."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from distill.benchmark import model_copies
from students import StudentConfig, StudentForSequenceClassification

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def make_models() -> dict[str, torch.nn.Module]:
    distil = DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=16)
    return {
        "bert": BertForSequenceClassification(BertConfig(**SMALL, max_position_embeddings=16)),
        "roberta": RobertaForSequenceClassification(
            RobertaConfig(**SMALL, max_position_embeddings=18, pad_token_id=1)
        ),
        "distilbert": DistilBertForSequenceClassification(distil),
    }


@pytest.mark.parametrize("attention", ["aft", "fnet", "linformer"])
def test_attention_that_has_tables_of_positions_runs_longer(attention):
    options = {"variant": "full"} if attention == "aft" else {}
    config = StudentConfig(**SMALL, max_position_embeddings=16, attention=attention, attention_options=options)
    extended = model_copies.extend_positions(StudentForSequenceClassification(config).eval(), 40)
    inputs = model_copies.make_inputs(extended, 2, 40, vocabulary_size=50, device="cpu")
    assert extended(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_extended_positions_run_longer_and_agree_where_both_run(family):
    model = make_models()[family].eval()
    assert not model_copies.is_speed_only([model], 16)
    assert model_copies.is_speed_only([model], 17)
    extended = model_copies.extend_positions(model, 40)
    short = model_copies.make_inputs(model, 2, 16, vocabulary_size=50, device="cpu")
    long = model_copies.make_inputs(model, 2, 40, vocabulary_size=50, device="cpu")
    with torch.inference_mode():
        torch.testing.assert_close(extended(**short).logits, model(**short).logits, rtol=0, atol=0)
        assert extended(**long).logits.shape == (2, 2)
    assert not model_copies.is_speed_only([extended], 40)
    assert model_copies.is_speed_only([model], 40), "the model given must stay as it was"
    assert model.config.max_position_embeddings < 40 <= extended.config.max_position_embeddings


def test_positions_are_tiled():
    model = make_models()["bert"]
    table = model_copies.extend_positions(model, 40).bert.embeddings.position_embeddings.weight
    torch.testing.assert_close(table[16:32], model.bert.embeddings.position_embeddings.weight)
    torch.testing.assert_close(table[32:], table[:8])


def test_inputs_follow_the_signature_and_the_seed():
    models = make_models()
    bert = model_copies.make_inputs(models["bert"], 2, 8, vocabulary_size=50, device="cpu")
    distilbert = model_copies.make_inputs(models["distilbert"], 2, 8, vocabulary_size=50, device="cpu")
    assert set(bert) == {"input_ids", "attention_mask", "token_type_ids"}
    assert set(distilbert) == {"input_ids", "attention_mask"}
    assert torch.equal(bert["input_ids"], distilbert["input_ids"])
    assert bert["input_ids"].min() >= 10
    assert bert["input_ids"].max() < 50


def test_copies_share_no_more_than_embeddings():
    """They are made for every block of rounds: half of the time went into tables of words."""
    model = make_models()["bert"]
    prepared = model_copies.prepare_model(model, "cpu", torch.float32)
    ours, theirs = (dict(each.named_parameters()) for each in (model, prepared))
    shared = {name for name in ours if ours[name].data_ptr() == theirs[name].data_ptr()}
    assert shared == {name for name in ours if "_embeddings" in name}
    assert all(ours[name] is not theirs[name] for name in ours)


def test_prepared_models_are_frozen_copies_with_sdpa():
    eager = make_models()["bert"].train()
    eager.set_attn_implementation("eager")
    prepared = model_copies.prepare_model(eager, "cpu", torch.bfloat16)
    assert prepared.config._attn_implementation == "sdpa"
    assert not prepared.training
    assert {(p.dtype, p.requires_grad) for p in prepared.parameters()} == {(torch.bfloat16, False)}
    assert eager.training
    assert {(p.dtype, p.requires_grad) for p in eager.parameters()} == {(torch.float32, True)}
