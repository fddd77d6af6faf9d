"""Teachers of every family whose layers are BERT's: loaded, fine-tuned by the same groups, read and refused alike."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.closeness import assert_close
from helpers.families import batch_for, tiny_classifier, tiny_tokenizer
from safetensors.torch import load_file, save_file
from torch import nn

from distill.config.schema import AugmentationConfig, StageConfig
from distill.data.augmentation import augment
from distill.data.splits import Examples
from distill.data.tokenization import tokenize
from distill.data.word_replacement import replaceable, whole_words
from distill.models.labels import permute_outputs
from distill.models.loading import load_for_task
from distill.tasks import get_task
from distill.training.label_scale import LabelScale
from distill.training.optimizer import parameter_groups
from distill.utils.errors import UserError
from students.families import FAMILIES, encoder_layers, layer_part
from teachers.layer_selection import most_needed_layers
from teachers.loading import is_classifier, load_teacher, untrained_like
from teachers.redrawing import Redrawn

over_families = pytest.mark.parametrize("kind", FAMILIES)
SST2, MNLI = get_task("sst2"), get_task("mnli")
TEXTS = ["a good film , and a bright one", "a bad film , dull and weak", "no plot at all , no bright end"] * 4


def save(folder, kind, bare=False, tokenizer=None, **settings):
    """Save a classifier or its encoder with a tokenizer of its kind; return the folder as a name."""
    tokenizer = tokenizer or tiny_tokenizer(kind, TEXTS)
    pad = {"pad_token_id": tokenizer.pad_token_id}
    model = tiny_classifier(kind, vocab_size=len(tokenizer), **pad | settings)
    (model.base_model if bare else model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def refusal(folder, task=SST2):
    with pytest.raises(UserError) as refused:
        load_teacher(folder, task)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@over_families
def test_a_finished_classifier_is_taken_as_it_is(kind, tmp_path):
    folder = save(tmp_path, kind)
    teacher = load_teacher(folder, SST2)
    assert teacher.is_trained
    assert is_classifier(folder)
    tokens = dict(teacher.tokenizer(TEXTS[0], return_tensors="pt"))
    plain = tiny_classifier(kind, vocab_size=len(teacher.tokenizer), pad_token_id=teacher.tokenizer.pad_token_id)
    with torch.no_grad():
        expected = plain(input_ids=tokens["input_ids"]).logits
        assert_close(teacher.model.eval()(**tokens).logits, expected)
        assert_close(load_for_task(tmp_path, "student", SST2).model(**tokens).logits, expected)
    assert "has 2 labels but task mnli has 3" in refusal(folder, MNLI)


@over_families
def test_an_encoder_gets_a_head_of_the_task(kind, tmp_path):
    folder = save(tmp_path, kind, bare=True)
    assert not is_classifier(folder)
    one, again, other = (load_teacher(folder, MNLI, seed) for seed in (3, 3, 4))
    assert not one.is_trained
    assert one.model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    inputs = batch_for(one.model)
    with torch.no_grad():
        logits = [each.model.eval()(**inputs).logits for each in (one, again, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    one.model.save_pretrained(tmp_path / "again")
    one.tokenizer.save_pretrained(tmp_path / "again")
    assert load_teacher(str(tmp_path / "again"), MNLI).is_trained


@over_families
def test_a_new_pooler_is_for_those_whose_encoder_has_one(kind, tmp_path):
    folder = save(tmp_path, kind, bare=True)
    assert load_teacher(folder, SST2, redrawn=Redrawn(True)).new_pooler is (kind in ("bert", "albert"))


@over_families
@pytest.mark.parametrize("bare", [False, True])
def test_a_weight_that_is_missing(kind, bare, tmp_path):
    folder = save(tmp_path, kind, bare=bare)
    weights = load_file(tmp_path / "model.safetensors")
    query = next(name for name in weights if name.endswith(("query.weight", "q_lin.weight")))
    save_file({name: values for name, values in weights.items() if name != query}, tmp_path / "model.safetensors")
    assert "is torn: 1 weights such as" in refusal(folder)


@over_families
def test_heads_that_were_pruned(kind, tmp_path):
    folder = save(tmp_path, kind)
    weights = load_file(tmp_path / "model.safetensors")
    query = next(name for name in weights if name.endswith(("query.weight", "q_lin.weight")))
    save_file(weights | {query: weights[query][:8].clone()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert f"has pruned attention heads ({query})" in refusal(folder)


@over_families
@pytest.mark.parametrize("key", ["vocab_size", "intermediate_size", "num_hidden_layers"])
def test_a_configuration_far_larger_than_its_weights(kind, key, tmp_path, monkeypatch):
    folder = save(tmp_path, kind)
    config = json.loads((tmp_path / "config.json").read_text())
    config[FAMILIES[kind].settings.get(key, key)] = 10**7
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("torch.nn.Linear.__init__", lambda *_, **__: pytest.fail("a layer was made"))
    assert "its config.json describes" in refusal(folder)


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_a_tokenizer_that_tells_pairs_apart_for_a_model_that_does_not(kind, tmp_path):
    """Some RoBERTas come with BERT's tokenizer."""
    tokenizer = tiny_tokenizer("bert", TEXTS)
    folder = save(tmp_path, kind, tokenizer=tokenizer, num_labels=3)
    teacher = load_teacher(folder, MNLI)
    pair = dict(tokenizer(*TEXTS[:2], return_tensors="pt"))
    assert pair["token_type_ids"].max() == 1
    assert teacher.model(**pair).logits.isfinite().all()
    assert load_for_task(tmp_path, "teacher", MNLI).model(**pair).logits.isfinite().all()
    if kind == "roberta":
        with pytest.raises(UserError, match="token type 1"):
            load_for_task(tmp_path, "student", MNLI)


@over_families
def test_learning_rates_fall_from_the_head_to_the_embeddings(kind):
    model = tiny_classifier(kind, num_hidden_layers=4, **({"num_hidden_groups": 2} if kind == "albert" else {}))
    stage = StageConfig(name="a", epochs=1, learning_rate=1.0, losses={"labels": 1.0}, train="all", layer_decay=0.5)
    groups = parameter_groups(model, stage, 0.1)
    found = {id(each): (group["lr"], group["weight_decay"]) for group in groups for each in group["params"]}
    assert len(found) == len(list(model.parameters()))

    def rate(module):
        (rates,) = {found[id(each)][0] for each in module.parameters()}
        return rate_of[rates]

    rate_of = {0.5**depth: depth for depth in range(7)}
    assert rate(model.classifier) == 0
    assert rate(model.base_model.embeddings) == 5
    depths = [rate(layer) for layer in encoder_layers(model)]
    assert depths == ([3, 3, 1, 1] if kind == "albert" else [4, 3, 2, 1])
    projection = getattr(model.base_model, "embeddings_project", None)
    projection = (
        getattr(model.base_model.encoder, "embedding_hidden_mapping_in", None) if kind == "albert" else projection
    )
    assert projection is None or rate(projection) == 5
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert {found[id(module.weight)][1] for module in norms} == {0.0}
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert {found[id(module.weight)][1] for module in linear} == {0.1}


def silence(teacher, layer):
    """Let a layer hand on what it gets, up to its normalisation."""
    for part in ("attention.output.dense", "output.dense"):
        dense = layer_part(teacher, encoder_layers(teacher)[layer], part)
        nn.init.zeros_(dense.weight)
        nn.init.zeros_(dense.bias)


@over_families
def test_silent_layers_go_first(kind, make_examples):
    groups = {"num_hidden_groups": 4} if kind == "albert" else {}
    teacher, examples = tiny_classifier(kind, vocab_size=60, num_hidden_layers=4, **groups), make_examples()
    for layer in (1, 3):  # a first one would normalise embeddings that are projected, which are not yet
        silence(teacher, layer)
    inputs = batch_for(teacher)
    before = teacher(**inputs).logits
    if getattr(teacher.config, "type_vocab_size", 0) < 2:
        examples.token_type_ids[:] = 0
    assert most_needed_layers(teacher, examples, 2) == [0, 2]
    assert torch.equal(teacher(**inputs).logits, before)


def test_layers_that_share_weights_can_be_left_out(make_examples):
    teacher = tiny_classifier("albert", vocab_size=60, num_hidden_layers=4)
    kept = most_needed_layers(teacher, make_examples(), 2)
    assert len(kept) == 2
    assert all(earlier < later for earlier, later in pairwise(kept))


@over_families
@torch.no_grad()
def test_outputs_are_put_in_order_and_scaled(kind):
    model = tiny_classifier(kind, num_labels=3)
    inputs = batch_for(model)
    before = model(**inputs).logits
    permute_outputs(model, [2, 0, 1], "it")
    assert_close(model(**inputs).logits, before[:, [2, 0, 1]])
    score = tiny_classifier(kind, num_labels=1)
    before = score(**inputs).logits
    LabelScale(shift=3.0, factor=2.0).restore_head(score)
    assert_close(score(**inputs).logits, 2 * before + 3)


@over_families
def test_a_model_from_scratch_has_the_family_and_the_size(kind):
    model = tiny_classifier(kind)
    one, again = (untrained_like(model, seed=1) for _ in range(2))
    assert type(one) is type(model)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), again.parameters(), strict=True))
    query = layer_part(one, encoder_layers(one)[0], "attention.self.query").weight
    assert not torch.equal(query, layer_part(model, encoder_layers(model)[0], "attention.self.query").weight)


@over_families
def test_words_are_found_whatever_marks_them(kind):
    tokenizer = tiny_tokenizer(kind, TEXTS * 5, 400)
    texts = [(text,) for text in TEXTS[:3]]
    examples = tokenize(Examples(np.arange(3), texts, np.zeros(3, np.int64)), tokenizer, 64)
    words = whole_words(tokenizer)
    assert not words[tokenizer.all_special_ids].any()
    where = replaceable(examples, tokenizer)
    found = {tokenizer.decode([token]).strip() for token in examples.token_ids[where]}
    assert {"film", "bright", "and", "plot"} <= found
    assert "," not in found
    settings = AugmentationConfig(copies=2, kinds=["replace", "cut"], share=0.5, candidates=2)
    embeddings = torch.randn(len(tokenizer), 8, generator=torch.Generator().manual_seed(0))
    more = augment(examples, settings, tokenizer, embeddings, None, seed=0)
    assert len(more) == 9
    changed = more.token_ids[len(examples.token_ids) : 2 * len(examples.token_ids)] != examples.token_ids
    assert 0 < changed.sum() <= where.sum()
    assert not (changed & ~where).any()


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta"])
def test_a_piece_of_a_word_is_no_word(kind):
    """Of a word that the vocabulary has no entry for, nothing is replaced: half of a word means something else."""
    tokenizer = tiny_tokenizer(kind, TEXTS * 5, 400)
    text = "a filmographer , a film"
    examples = tokenize(Examples(np.arange(1), [(text,)], np.zeros(1, np.int64)), tokenizer, 64)
    tokens = tokenizer.convert_ids_to_tokens(examples.token_ids.tolist())
    replaced = [token.strip("\u0120\u2581") for token in np.array(tokens)[replaceable(examples, tokenizer)]]
    assert replaced.count("film") == 1
    assert len(tokens) > 8
