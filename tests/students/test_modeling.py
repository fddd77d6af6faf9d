"""The student as a transformers model: BERT's interface, saving and loading anywhere, precision, refusals."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)

from students import ATTENTIONS, StudentConfig, StudentForSequenceClassification, StudentModel
from students.attention.performer import PerformerAttention

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    # Ordinary initialisation leaves tiny models almost constant.
    "initializer_range": 0.3,
}


def student(**options):
    torch.manual_seed(0)
    return StudentForSequenceClassification(StudentConfig(**SIZES | options)).eval()


def batch(batch_size=3, length=10):
    random = torch.Generator().manual_seed(0)
    input_ids = torch.randint(1, 60, (batch_size, length), generator=random)
    attention_mask = (torch.arange(length) < torch.tensor([length, 4, 7])[:batch_size, None]).long()
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": input_ids % 2}


@pytest.fixture(scope="module")
def bert_pair():
    """A BERT and a softmax student with the same weights."""
    torch.manual_seed(0)
    bert = BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).eval()
    twin = student(attention="softmax", num_labels=3)
    twin.load_state_dict(bert.state_dict())
    return bert, twin


@pytest.mark.parametrize("how", ["full", "no_mask", "embeddings", "positions", "plain"])
def test_inputs_are_berts(bert_pair, how):
    bert, twin = bert_pair
    inputs = batch()
    if how == "no_mask":
        del inputs["attention_mask"]
    if how == "embeddings":
        inputs["inputs_embeds"] = bert.bert.embeddings.word_embeddings(inputs.pop("input_ids")).detach()
    if how == "positions":
        inputs["position_ids"] = torch.arange(10).flip(0).expand(3, -1)
    if how == "plain":
        inputs = {"input_ids": inputs["input_ids"]}
    with torch.no_grad():
        expected = bert(**inputs, output_hidden_states=True)
        result = twin(**inputs, output_hidden_states=True)
    torch.testing.assert_close(result.logits, expected.logits, rtol=0, atol=1e-5)
    assert len(result.hidden_states) == 3
    real = inputs.get("attention_mask", torch.ones(3, 10)).bool()
    for ours, berts in zip(result.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours[real], berts[real], rtol=0, atol=1e-5)


def test_module_names_and_hooks_are_berts(bert_pair):
    bert, twin = bert_pair
    assert list(twin.state_dict()) == list(bert.state_dict())
    captured = []
    for model in bert_pair:
        attention = model.bert.encoder.layer[1].attention
        hooks = [
            attention.self.register_forward_hook(lambda module, inputs, output: captured.append(output[0])),
            attention.output.dense.register_forward_hook(lambda module, inputs, output: captured.append(output)),
        ]
        with torch.no_grad():
            model(input_ids=batch()["input_ids"])
        for hook in hooks:
            hook.remove()
    for berts, ours in zip(captured[:2], captured[2:], strict=True):
        torch.testing.assert_close(ours, berts, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem_type"),
    [
        (3, torch.tensor([0, 2, 1]), None),
        (3, torch.tensor([0, 2, -100]), "single_label_classification"),
        (1, torch.tensor([0.5, 4.0, 2.5]), None),
        (2, torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), None),
        (2, torch.tensor([[0.3, 1.5], [2.0, 1.0], [0.1, 0.0]]), "regression"),
    ],
)
def test_losses_are_berts(num_labels, labels, problem_type):
    torch.manual_seed(0)
    bert = BertForSequenceClassification(BertConfig(**SIZES, num_labels=num_labels, problem_type=problem_type)).eval()
    twin = student(attention="softmax", num_labels=num_labels, problem_type=problem_type)
    twin.load_state_dict(bert.state_dict())
    with torch.no_grad():
        expected, result = bert(**batch(), labels=labels), twin(**batch(), labels=labels)
    torch.testing.assert_close(result.loss, expected.loss)


def test_regression_takes_a_single_example_and_whole_numbers():
    model = student(num_labels=1)
    inputs = batch(batch_size=1)
    logit = model(**inputs).logits.item()
    loss = model(**inputs, labels=torch.tensor([3])).loss.item()
    assert loss == pytest.approx((logit - 3) ** 2, rel=1e-5)


def test_mask_may_be_bool_int_or_absent():
    model = student()
    inputs = batch()
    expected = model(**inputs).logits
    for dtype in (torch.bool, torch.int32, torch.float32):
        assert torch.equal(model(**inputs | {"attention_mask": inputs["attention_mask"].to(dtype)}).logits, expected)
    everything = torch.ones_like(inputs["attention_mask"])
    without = model(input_ids=inputs["input_ids"]).logits
    torch.testing.assert_close(model(input_ids=inputs["input_ids"], attention_mask=everything).logits, without)
    assert (model(**inputs).logits - model(inputs["input_ids"]).logits).abs().max() > 1e-3


def test_tuples_and_hidden_states_on_request():
    model = student()
    as_tuple = model(**batch(), return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], model(**batch()).logits)
    assert model(**batch()).hidden_states is None
    model.config.output_hidden_states = True
    assert len(model(**batch()).hidden_states) == 3


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_parameter_gets_a_gradient(attention):
    options = dict(ATTENTIONS[attention].small_options)
    model = student(attention=attention, features="learned", attention_options=options).train()
    with torch.no_grad():
        for parameter in (p for layer in model.bert.encoder.layer for p in layer.attention.self.feature_parameters()):
            parameter.add_(
                0.1 * torch.randn(parameter.shape)
            )  # factors that start at 0 keep others waiting for a step
    outputs = model(**batch(), labels=torch.tensor([0, 1, 1]), output_hidden_states=True)
    # The classifier reads the first token alone, which a mechanism may treat apart.
    (outputs.loss + outputs.hidden_states[-1].tanh().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A softmax over keys does not feel their bias, which adds the same to all logits of a query.
        assert parameter.grad.abs().max() > 0 or re.search(r"\.key\w*\.bias$", name), name


def test_gradient_checkpointing_changes_no_gradient():
    model = student(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.bert.encoder.layer[0].gradient_checkpointing
        model.zero_grad()
        model(**batch(), labels=torch.tensor([0, 1, 1])).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_softmax_layers_mix_mechanisms():
    model = student(softmax_layers=[1])
    kinds = [type(layer.attention.self).__name__ for layer in model.bert.encoder.layer]
    assert kinds == ["PerformerAttention", "SoftmaxAttention"]


def test_dropout_is_berts(bert_pair):
    logits = []
    for model in bert_pair:
        model.train()
        torch.manual_seed(3)
        logits.append(model(input_ids=batch()["input_ids"]).logits)
        model.eval()
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    assert (logits[0] - bert_pair[0](input_ids=batch()["input_ids"]).logits).abs().max() > 1e-2


def test_loading_in_half_precision_keeps_learned_features_in_full(tmp_path):
    student(features="learned").save_pretrained(tmp_path)
    loaded = StudentForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    attention = loaded.bert.encoder.layer[0].attention.self
    assert {parameter.dtype for parameter in attention.feature_parameters()} == {torch.float32}
    assert attention.query.weight.dtype == torch.bfloat16
    assert loaded(**batch()).logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_random_features(dtype, tmp_path):
    model = student()
    projection = model.bert.encoder.layer[0].attention.self.projection.clone()
    expected = model(**batch()).logits
    model.save_pretrained(tmp_path)
    for half in (model.to(dtype), StudentForSequenceClassification.from_pretrained(tmp_path, dtype=dtype).eval()):
        attention = half.bert.encoder.layer[0].attention.self
        assert attention.query.weight.dtype == dtype
        assert torch.equal(attention.projection, projection)
        logits = half(**batch()).logits
        assert logits.dtype == dtype
        assert (logits.float() - expected).abs().max() < 0.2 * expected.abs().max()


def test_loading_a_checkpoint_without_features_draws_them(tmp_path):
    """transformers leaves what a checkpoint lacks uninitialised unless the model sets it."""
    student(attention="softmax").save_pretrained(tmp_path)
    config = StudentConfig(**SIZES, initial_temperature=0.5)
    loaded = [StudentForSequenceClassification.from_pretrained(tmp_path, config=config) for _ in range(2)]
    fresh = StudentModel(config).encoder.layer[1].attention.self
    for model in loaded:
        attention = model.bert.encoder.layer[1].attention.self
        assert torch.equal(attention.projection, fresh.projection)
        assert attention.redraw_index == 0
        torch.testing.assert_close(attention.temperature, torch.full((4,), 0.5))


def test_loading_keeps_trained_features(tmp_path):
    model = student(features="learned", initial_temperature=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("projection", "log_temperature")):
                parameter.add_(1.0)
    model.save_pretrained(tmp_path)
    loaded = StudentForSequenceClassification.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_redraw_moves_only_the_projections():
    model = student(features="redrawn")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.redraw_projections(5)
    changed = {
        name.rpartition(".")[2] for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {"projection", "redraw_index"}
    with pytest.raises(ValueError, match="only 'redrawn'"):
        student().redraw_projections(1)


ELSEWHERE = """
import json, sys, torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
folder, again = sys.argv[1:]
batch = {name: torch.tensor(rows) for name, rows in json.load(sys.stdin).items()}
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
tokens = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)("good film")["input_ids"]
model.save_pretrained(again)  # a loaded student can be saved and loaded once more
reloaded = AutoModelForSequenceClassification.from_pretrained(again, trust_remote_code=True)
assert "students" not in sys.modules
result = {
    "logits": model(**batch).logits.tolist(),
    "reloaded": reloaded(**batch).logits.tolist(),
    "pooled": encoder(**batch).pooler_output.tolist(),
    "tokens": tokens,
    "attention": config.attention,
}
print(json.dumps(result))
"""


def test_checkpoint_loads_in_a_fresh_process_without_this_repository(tmp_path):
    model = student(softmax_layers=[0])
    folder = tmp_path / "a student.v1"
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    tokenizer.save_pretrained(folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), str(tmp_path / "again")],
        input=json.dumps({name: tensor.tolist() for name, tensor in batch().items()}),
        capture_output=True,
        cwd=tmp_path,
        env=environment,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    expected = model(**batch())
    # One thread there, perhaps several here: sums may differ in the last bit.
    torch.testing.assert_close(torch.tensor(result["logits"]), expected.logits, rtol=0, atol=1e-6)
    assert result["reloaded"] == result["logits"]
    torch.testing.assert_close(torch.tensor(result["pooled"]), model.bert(**batch()).pooler_output, rtol=0, atol=1e-6)
    assert result["tokens"] == [2, 5, 6, 3]
    assert result["attention"] == "performer"


ALL_ELSEWHERE = """
import json, sys, torch
from pathlib import Path
from transformers import AutoModelForSequenceClassification
batch = {name: torch.tensor(rows) for name, rows in json.load(sys.stdin).items()}
logits = {}
for folder in Path(sys.argv[1]).iterdir():
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    logits[folder.name] = model(**batch).logits.tolist()
assert "students" not in sys.modules
print(json.dumps(logits))
"""


def test_every_mechanism_loads_without_this_repository(tmp_path):
    """One process for all: a mechanism's source comes with its checkpoint, shared helpers included."""
    models = {}
    for name, attention in ATTENTIONS.items():
        models[name] = student(attention=name, attention_options=dict(attention.small_options))
        models[name].save_pretrained(tmp_path / "students" / name)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", ALL_ELSEWHERE, str(tmp_path / "students")],
        input=json.dumps({name: tensor.tolist() for name, tensor in batch().items()}),
        capture_output=True,
        cwd=tmp_path,
        env=environment,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    logits = json.loads(process.stdout.splitlines()[-1])
    for name, model in models.items():
        # One thread there, perhaps several here: sums may differ in the last bit.
        expected = model(**batch()).logits
        torch.testing.assert_close(torch.tensor(logits[name]), expected, rtol=0, atol=1e-6, msg=name)


def test_auto_classes_know_the_student_without_remote_code(tmp_path):
    model = student()
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is StudentConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is StudentModel
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is StudentForSequenceClassification
    assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)


def test_saving_writes_exactly_the_model_and_its_source(tmp_path):
    student().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "modeling.py",
        "configuration.py",
        "self_contained.py",
        "attention.py",
        "attention_base.py",
        "attention_favor.py",
        "attention_masking.py",
        "attention_naive.py",
        "attention_performer.py",
        "attention_random_features.py",
    }
    student().save_pretrained(tmp_path / "other_rank", is_main_process=False)
    assert not list((tmp_path / "other_rank").glob("*.py"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "perfomer"}, "did you mean 'performer'"),
        ({"attention": "zzz"}, r"choose one of (\w+, )*performer, "),
        ({"attention_options": {"size": 3}}, "attention option 'size' is unknown"),
        ({"features": "learnt"}, "did you mean 'learned'"),
        ({"num_feature": 64}, "did you mean 'num_features'"),
        ({"num_features": 0}, "num_features must be positive"),
        ({"initial_temperature": 0.0}, "initial_temperature must be positive"),
        ({"initial_temperature": float("nan")}, "initial_temperature must be positive"),
        ({"softmax_layers": [2]}, r"softmax_layers \[2\] do not exist: layers are 0 to 1"),
        ({"hidden_size": 30}, "not a multiple"),
        ({"is_decoder": True}, "encoders"),
    ],
)
def test_configuration_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        StudentConfig(**SIZES | options)


def test_inputs_refused():
    model = student()
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match="25 tokens are more than the 24 positions"):
        model(input_ids=torch.ones(1, 25, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(batch, length\)"):
        model(input_ids=torch.ones(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize(("head_size", "expected"), [(64, 256), (32, 128), (16, 32), (1, 1)])
def test_default_number_of_features(head_size, expected):
    assert PerformerAttention.default_num_features(head_size) == expected
    assert StudentConfig(hidden_size=2 * head_size, num_attention_heads=2).num_features == expected
