"""The student as a transformers model: BERT's interface, saving and loading, precision, refusals."""

import re

import pytest
import torch
from helpers.closeness import assert_close
from helpers.small_students import SIZES, batch, student
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from students import ATTENTIONS, StudentConfig, StudentForSequenceClassification, StudentModel, encoder


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
    assert_close(result.logits, expected.logits)
    assert len(result.hidden_states) == 3
    real = inputs.get("attention_mask", torch.ones(3, 10)).bool()
    for ours, berts in zip(result.hidden_states, expected.hidden_states, strict=True):
        assert_close(ours[real], berts[real])


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
            model(input_ids=batch()["input_ids"], output_hidden_states=True)
        for hook in hooks:
            hook.remove()
    for berts, ours in zip(captured[:2], captured[2:], strict=True):
        assert_close(ours, berts)


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


def test_softmax_layers_count_from_the_end_too():
    sizes = SIZES | {"num_hidden_layers": 3}
    assert StudentConfig(**sizes, softmax_layers=[-1, 0, 2]).softmax_layers == [0, 2]


def test_softmax_layers_mix_mechanisms():
    model = student(softmax_layers=[1])
    kinds = [type(layer.attention.self).__name__ for layer in model.bert.encoder.layer]
    assert kinds == ["PerformerAttention", "SoftmaxAttention"]


def test_dropout_is_berts(bert_pair):
    logits = []
    for model in bert_pair:
        model.train()
        torch.manual_seed(3)
        # All tokens of the last layer, as BERT, so that both draw the same random numbers.
        logits.append(model(input_ids=batch()["input_ids"], output_hidden_states=True).logits)
        model.eval()
    assert_close(*logits)
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


def test_auto_classes_know_the_student_without_remote_code(tmp_path):
    model = student()
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is StudentConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is StudentModel
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is StudentForSequenceClassification
    assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)


def test_inputs_refused():
    model = student()
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match="25 tokens are more than the 24 positions"):
        model(input_ids=torch.ones(1, 25, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(batch, length\)"):
        model(input_ids=torch.ones(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("name", ["performer", "scaling"])  # BERT's feed-forward layer, and one of its own
def test_feed_forward_units_of_many_tokens_are_computed_in_parts(name, monkeypatch):
    """Without a gradient; the parts are the whole, and of the first token alone there is nothing to cut."""
    options = {"feed_forward_block": 4} if name == "scaling" else {}
    model, seen = student(attention=name, attention_options=options), []
    kind = type(model.bert.encoder.layer[0].intermediate)
    original = kind.forward

    def forward(module, hidden_states):
        seen.append(tuple(hidden_states.shape[:2]))
        return original(module, hidden_states)

    monkeypatch.setattr(kind, "forward", forward)

    def states(units):
        monkeypatch.setattr(encoder, "MOST_UNITS", units)
        seen.clear()
        return torch.stack(model(**batch(), output_hidden_states=True).hidden_states)

    with torch.no_grad():
        whole = states(10**9)
        assert seen == [(3, 10)] * 2
        assert_close(states(8 * SIZES["intermediate_size"]), whole)
        assert seen == [(1, 8), (1, 8), (1, 8), (1, 6)] * 2
    assert_close(states(1).detach(), whole)
    assert seen == [(3, 10)] * 2


def test_who_hooks_a_feed_forward_layer_gets_all_tokens_at_once(monkeypatch):
    monkeypatch.setattr(encoder, "MOST_UNITS", 1)
    model, seen = student(attention="performer"), []
    first, second = model.bert.encoder.layer
    first.intermediate.dense.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    second.output.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        model(**batch(), output_hidden_states=True)
    assert seen == [(3, 10, SIZES["hidden_size"])] * 2
