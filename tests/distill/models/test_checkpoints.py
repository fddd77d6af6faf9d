"""Checkpoints that transformers loads without a word although something is lost: refused, whoever loads them."""

import json

import pytest
import torch
from helpers.tiny_bert import tiny_bert
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertModel, BertTokenizer

from distill.models.loading import load_classifier, load_for_task
from distill.tasks import get_task
from distill.utils.errors import UserError
from teachers.loading import load_teacher

SST2, RTE = get_task("sst2"), get_task("rte")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
LAYER = "bert.encoder.layer.0.attention.self"
LOADERS = {
    "teacher": lambda folder: load_teacher(str(folder), SST2).model,
    "compare": lambda folder: load_classifier(folder, "student").model,
}
over_loaders = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


@pytest.fixture
def folder(tmp_path):
    """A finished classifier in order."""
    return save(tiny_bert(vocab_size=len(WORDS)), tmp_path / "model")


def save(model, folder):
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def change_weights(folder, change):
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(load, folder):
    with pytest.raises(UserError) as refused:
        load(folder)
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@over_loaders
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("pickled", [False, True])
def test_wrappers_of_training_are_taken_off(load, prefix, pickled, folder):
    expected = load(folder).state_dict()
    change_weights(folder, lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()})
    if pickled:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    found = load(folder).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@over_loaders
@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_relative_positions(load, kind, folder):
    change_weights(folder, lambda weights: weights | {f"{LAYER}.distance_embedding.weight": torch.ones(63, 8)})
    change_config(folder, position_embedding_type=kind)
    assert f"has positions of type '{kind}', which transformers no longer computes" in refusal(load, folder)


@over_loaders
def test_weights_of_layers_that_the_configuration_does_not_have(load, folder):
    change_config(folder, num_hidden_layers=1)
    message = refusal(load, folder)
    assert "holds 16 weights such as bert.encoder.layer.1." in message
    assert "that its config.json has no place for" in message


@over_loaders
def test_a_norm_that_bert_does_not_have(load, folder):
    change_weights(folder, lambda weights: weights | {"bert.embeddings.extra_norm.weight": torch.ones(16)})
    assert "holds 1 weights such as bert.embeddings.extra_norm.weight" in refusal(load, folder)


@over_loaders
def test_what_old_checkpoints_hold_besides_does_no_harm(load, folder):
    harmless = {"bert.embeddings.position_ids": torch.arange(32), "cls.seq_relationship.weight": torch.ones(2, 16)}
    change_weights(folder, lambda weights: weights | harmless)
    load(folder)


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertModel])
def test_encoders_as_pretraining_leaves_them_are_loaded(kind, tmp_path):
    folder = save(kind(tiny_bert(vocab_size=len(WORDS)).config), tmp_path)
    assert not load_teacher(str(folder), SST2).is_trained


def test_an_encoder_of_relative_positions(tmp_path):
    folder = save(BertModel(tiny_bert(vocab_size=len(WORDS)).config), tmp_path)
    change_weights(
        folder,
        lambda weights: weights | {"encoder.layer.0.attention.self.distance_embedding.weight": torch.ones(63, 8)},
    )
    assert "has positions of type 'relative'" in refusal(LOADERS["teacher"], folder)


@over_loaders
def test_pruned_heads(load, folder):
    def prune(weights):
        parts = {f"{LAYER}.{name}": slice(8) for name in ("query.weight", "key.weight", "value.weight")}
        parts |= {f"{LAYER}.{name}": slice(8) for name in ("query.bias", "key.bias", "value.bias")}
        return {name: (w[parts[name]] if name in parts else w).contiguous() for name, w in weights.items()}

    change_weights(folder, prune)
    change_config(folder, pruned_heads={"0": [1]})
    assert "has pruned attention heads" in refusal(load, folder)


@over_loaders
def test_an_adapter_that_was_not_merged(load, folder):
    def wrap(weights):
        name = f"{LAYER}.query.weight"
        more = {
            f"{LAYER}.query.base_layer.weight": weights[name],
            f"{LAYER}.query.lora_A.default.weight": torch.ones(2, 16),
        }
        return {key: tensor for key, tensor in weights.items() if key != name} | more

    change_weights(folder, wrap)
    assert "holds a LoRA adapter that is not merged" in refusal(load, folder)


@over_loaders
@pytest.mark.parametrize(
    "content",
    ['{"base_model_name_or_path": "bert-base-uncased", "peft_type": "LORA"}', "{", "[]", "[" * 100_000],
    ids=["whole", "torn", "list", "deep"],
)
def test_the_folder_of_an_adapter(load, content, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(content)
    save_file({"base_model.model.bert.x.lora_A.weight": torch.ones(1)}, folder / "adapter_model.safetensors")
    message = refusal(load, folder)
    assert "is an adapter" in message
    assert "merge_and_unload" in message
    assert ("of 'bert-base-uncased'" in message) == ("uncased" in content)


@over_loaders
def test_the_folder_above_checkpoints(load, folder, tmp_path):
    for step in (5, 10, 100, 20):
        (tmp_path / "run").mkdir(exist_ok=True)
        save(tiny_bert(vocab_size=len(WORDS)), tmp_path / "run" / f"checkpoint-{step}")
    assert f"did you mean {tmp_path / 'run' / 'checkpoint-100'}?" in refusal(load, tmp_path / "run")


def test_the_folder_of_a_run_holds_a_model_of_the_wanted_role(tmp_path):
    for name in ("baseline", "student", "teacher"):
        save(tiny_bert(vocab_size=len(WORDS)), tmp_path / name)
    assert f"did you mean {tmp_path / 'student'}?" in refusal(LOADERS["compare"], tmp_path)


@over_loaders
@pytest.mark.parametrize("size", ["num_hidden_layers", "vocab_size", "intermediate_size", "hidden_size"])
def test_a_configuration_far_larger_than_its_weights_is_refused_before_anything_is_made(
    load, size, folder, monkeypatch
):
    monkeypatch.setattr("torch.nn.Linear.__init__", lambda *_, **__: pytest.fail("a layer was made"))
    change_config(folder, **{size: 10**7})
    assert "its config.json describes" in refusal(load, folder)


def test_a_decoder_is_no_teacher(folder):
    change_config(folder, is_decoder=True)
    assert "is a decoder" in refusal(LOADERS["teacher"], folder)


def test_pairs_need_two_token_types(tmp_path):
    folder = save(tiny_bert(vocab_size=len(WORDS), type_vocab_size=1), tmp_path / "model")
    for load in (lambda path: load_teacher(str(path), RTE), lambda path: load_for_task(path, "student", RTE)):
        assert "has type_vocab_size 1 and its tokenizer gives pairs of texts token type 1" in refusal(load, folder)
    load_teacher(str(folder), SST2)
    load_for_task(folder, "student", SST2)


@over_loaders
def test_how_somebody_calls_a_model_is_not_how_it_is_read_here(load, folder):
    change_config(folder, return_dict=False, output_attentions=True, output_hidden_states=True)
    output = load(folder)(input_ids=torch.tensor([[2, 5, 3]]))
    assert output.logits.shape == (1, 2)
    assert output.hidden_states is None


@pytest.fixture
def cached_adapter(tmp_path, monkeypatch):
    """Put an adapter into a cache of the Hub of its own, as a download leaves it; return its name."""
    repository = tmp_path / "hub" / "models--somebody--adapter"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "bert-base-uncased"}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return "somebody/adapter"


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_by_its_name_on_the_hub(cached_adapter, with_config, tmp_path):
    if with_config:
        (snapshot,) = tmp_path.glob("hub/*/snapshots/*")
        tiny_bert().config.save_pretrained(snapshot)
    message = refusal(LOADERS["teacher"], cached_adapter)
    assert "is an adapter of 'bert-base-uncased', not a model; merge it into its model" in message


@pytest.mark.parametrize("name", ["somebody/unknown", "no/such/folder", "a b", "x" * 200])
def test_what_is_not_in_the_cache_is_no_adapter(cached_adapter, name):
    assert "no readable folder or Hub name" in refusal(LOADERS["teacher"], name)
