"""What a stage reads, what it makes of it, and what it trains."""

import copy

import numpy as np
import pytest
import torch
from helpers.closeness import LAST_BITS, assert_close

from distill.config.schema import LOSSES, StageConfig
from distill.data.batching import collate
from distill.models.hooks import capture
from distill.objectives.capture_plan import CapturePlan, StageModel, hidden_state_targets, plan_stage
from distill.objectives.losses import masked_mse
from distill.objectives.stage_losses import compute_losses
from distill.training.optimizer import (
    default_feature_rate,
    feature_parameters,
    parameter_groups,
    set_trainable,
    trainable,
)
from students import ATTENTIONS, student_from_teacher
from teachers.loading import freeze
from teachers.outputs import OnlineTeacherOutputs, head_size_of

LAYERS = [0, 1]
COMMON_LOSSES = [name for name in LOSSES if name != "compression"]  # that one is Compressive attention's


def stage_of(*names: str, **settings: object) -> StageConfig:
    return StageConfig(
        **{"name": "s", "epochs": 1, "learning_rate": 0.01, "losses": dict.fromkeys(names, 1.0)} | settings
    )


@pytest.mark.parametrize(
    ("layer_map", "num_teacher_layers", "expected"),
    [
        ([0, 1, 2, 3], 4, [0, 1, 2, 3]),
        ([0, 2, 4], 6, [1, 3, 5]),
        ([0, 1], 6, [0, 5]),
        ([3, 4, 5], 6, [3, 4, 5]),
        ([2], 6, [5]),
    ],
)
def test_hidden_state_targets(layer_map, num_teacher_layers, expected):
    assert hidden_state_targets(layer_map, num_teacher_layers) == expected


@pytest.mark.parametrize(
    ("loss", "student", "teacher"),
    [
        ("attention_output", {"attention_output": LAYERS}, {"attention_output": [0, 2]}),
        ("attention_context", {"attention_context": LAYERS}, {"attention_context": [0, 2]}),
        ("attention_map", {"query": LAYERS, "key": LAYERS}, {"query": [0, 2], "key": [0, 2]}),
        ("hidden_states", {"hidden_states": LAYERS}, {"hidden_states": [1, 5]}),
        ("value_relations", {"value": LAYERS}, {"value": [0, 2]}),
        ("query_relations", {"query": LAYERS}, {"query": [0, 2]}),
        ("key_relations", {"key": LAYERS}, {"key": [0, 2]}),
        ("logits", {}, {}),
        ("labels", {}, {}),
        ("compression", {"layer_input": LAYERS}, {}),
    ],
)
def test_plan_of_every_loss(loss, student, teacher):
    plan = plan_stage(stage_of(loss), [0, 2], 6)
    maps = {"needs_logits": loss == "logits", "needs_maps": loss == "attention_map"}
    assert plan == CapturePlan(student, teacher, teacher_forced=False, **maps)


def test_teacher_forcing_reads_the_inputs_of_the_mapped_layers():
    plan = plan_stage(stage_of("attention_output", inputs="teacher"), [0, 2], 6)
    assert plan.teacher == {"attention_output": [0, 2], "layer_input": [0, 2]}
    assert plan.student == {"attention_output": [0, 1]}
    assert plan.teacher_forced


def run_stage(stage, teacher, student, layer_map, examples):
    """Return the losses of one batch of a stage."""
    inputs, labels = collate(examples, np.arange(6))
    plan = plan_stage(stage, layer_map, teacher.config.num_hidden_layers)
    outputs = OnlineTeacherOutputs(teacher, plan).batch(np.arange(6), inputs)
    got = StageModel(student, plan)(inputs, outputs.get("layer_input"))
    return compute_losses(stage, got, outputs, inputs | {"labels": labels}, head_size_of(teacher))


@pytest.mark.parametrize("inputs", ["student", "teacher"])
def test_loss_and_gradient_are_zero_where_the_student_is_the_teacher(inputs, make_bert, make_examples):
    teacher = freeze(make_bert(num_layers=3))
    student = student_from_teacher(teacher, layer_map=[0, 1, 2], attention="softmax")[0].eval()
    names = ("attention_output", "attention_context", "attention_map")
    if inputs == "student":
        names = tuple(name for name in LOSSES if name not in ("labels", "compression"))
    values = run_stage(stage_of(*names, inputs=inputs), teacher, student, [0, 1, 2], make_examples())
    assert set(values) == set(names)
    for name, value in values.items():
        assert value.shape == (6,), name
        assert value.abs().max() < 1e-5, name
    torch.stack(list(values.values())).sum().backward()
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert gradients
    assert max(gradient.abs().max() for gradient in gradients) < 1e-4
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_every_loss_is_positive_and_has_a_gradient_where_they_differ(make_bert, make_examples):
    teacher = freeze(make_bert(num_layers=4))
    student = student_from_teacher(teacher, layer_map=[0, 2], attention="softmax")[0].eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    for name in COMMON_LOSSES:
        student.zero_grad()
        value = run_stage(stage_of(name), teacher, student, [0, 2], make_examples())[name]
        assert value.min() > 0, name
        value.sum().backward()
        weight = student.bert.encoder.layer[0].attention.self.value.weight
        queries = student.bert.encoder.layer[1].attention.self.query.weight
        trained = queries if name == "attention_map" else weight
        assert trained.grad.abs().max() > 1e-4, name


def test_the_compression_loss_trains_the_compressions_of_all_layers_alone(make_bert, make_examples):
    teacher = freeze(make_bert(num_layers=3))
    options = {"segment": 2, "memory": 2, "compressed": 2, "rate": 2}
    student = student_from_teacher(
        teacher, layer_map=[0, 1, 2], attention="compressive", attention_options=options, softmax_layers=[1]
    )[0]
    value = run_stage(stage_of("compression"), teacher, student, [0, 1, 2], make_examples())["compression"]
    assert value.shape == (6,)
    assert value.min() >= 0
    value.mean().backward()
    trained = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    layers = [f"bert.encoder.layer.{index}.attention.self.compression.weight" for index in (0, 2)]
    assert trained == set(layers)
    assert all(student.get_parameter(name).grad.abs().max() > 0 for name in layers)


def test_the_teacher_never_gets_a_gradient_even_if_nobody_froze_it(make_bert, make_examples):
    teacher = make_bert()
    student = student_from_teacher(teacher, layer_map=[0, 1], attention="performer", num_features=8)[0].eval()
    values = run_stage(stage_of(*COMMON_LOSSES), teacher, student, [0, 1], make_examples())
    torch.stack(list(values.values())).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_teacher_in_training_mode_is_refused(make_bert, make_examples):
    teacher = make_bert().train()
    inputs, _ = collate(make_examples(), np.arange(2))
    with pytest.raises(AssertionError, match="eval mode"):
        OnlineTeacherOutputs(teacher, CapturePlan()).batch(np.arange(2), inputs)


def test_teacher_forced_attention_reads_the_teachers_hidden_states(make_bert, make_examples):
    teacher = freeze(make_bert(num_layers=4))
    student = student_from_teacher(teacher, layer_map=[1, 3], attention="softmax")[0].eval()
    inputs, _ = collate(make_examples(), np.arange(4))
    stage = stage_of("attention_output", "attention_context", inputs="teacher")
    plan = plan_stage(stage, [1, 3], 4)
    with torch.no_grad(), capture(teacher, plan.teacher) as expected:
        teacher(**inputs)
    outputs = StageModel(student, plan)(inputs, expected["layer_input"])
    assert "logits" not in outputs
    real = inputs["attention_mask"].bool()
    for kind in ("attention_output", "attention_context"):
        for layer in range(2):
            assert_close(outputs[kind][layer][real], expected[kind][layer][real])
    # On its own activations layer 1 reads something else: teacher layer 2 is missing between the two.
    free = StageModel(student, plan_stage(stage_of("attention_output"), [1, 3], 4))(inputs)
    assert not torch.allclose(free["attention_output"][1][real], expected["attention_output"][1][real], atol=1e-2)


@pytest.mark.parametrize("attention", ["softmax", "performer", "fnet"])
@pytest.mark.parametrize("inputs", ["student", "teacher"])
def test_of_the_last_layer_the_first_token_alone_can_be_matched(attention, inputs, make_bert, make_examples):
    teacher = freeze(make_bert(num_layers=4))
    student = student_from_teacher(teacher, layer_map=[0, 2], attention=attention)[0].eval()
    losses = ["attention_output"] + ["hidden_states", "logits"] * (inputs == "student")
    whole, alone = (stage_of(*losses, inputs=inputs, last_layer=which) for which in ("all", "first_token"))
    examples = make_examples()
    tokens, labels = collate(examples, np.arange(4))
    batch = tokens | {"labels": labels}
    plan = plan_stage(alone, [0, 2], 4)
    targets = OnlineTeacherOutputs(teacher, plan).batch(np.arange(4), tokens)
    outputs = {
        name: StageModel(student, plan_stage(stage, [0, 2], 4))(tokens, targets.get("layer_input"))
        for name, stage in (("all", whole), ("first_token", alone))
    }
    for kind in losses[:2]:
        first, last = outputs["first_token"][kind]
        assert last.shape == (4, 1, teacher.config.hidden_size)
        assert_close(last, outputs["all"][kind][1][:, :1])
        assert torch.equal(first, outputs["all"][kind][0])
    values = compute_losses(alone, outputs["first_token"], targets, batch, 16)
    error = (outputs["all"]["attention_output"][1] - targets["attention_output"][1])[:, 0].square().mean(-1)
    last_term = error / targets["attention_output"][1][:, 0].var(-1, unbiased=False)
    first_term = masked_mse(
        outputs["all"]["attention_output"][0], targets["attention_output"][0], tokens["attention_mask"].bool()
    )
    assert torch.allclose(values["attention_output"], (first_term + last_term) / 2, rtol=1e-3)


def test_teacher_forced_layers_carry_their_state(make_bert, make_examples):
    teacher = freeze(make_bert(num_layers=2))
    student = student_from_teacher(teacher, layer_map=[0, 1], attention="luna", num_features=4)[0].eval()
    inputs, _ = collate(make_examples(), np.arange(4))
    plan = plan_stage(stage_of("attention_output", inputs="teacher"), [0, 1], 2)
    free = StageModel(student, plan_stage(stage_of("attention_output"), [0, 1], 2))
    with torch.no_grad(), capture(student, {"layer_input": LAYERS}) as own:
        expected = free(inputs)["attention_output"]
        forced = StageModel(student, plan)(inputs, own["layer_input"])["attention_output"]
    for layer in LAYERS:
        assert_close(forced[layer], expected[layer], LAST_BITS)


def names_trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def performer(make_bert):
    return student_from_teacher(
        make_bert(num_layers=2), layer_map=[0, 1], attention="performer", num_features=8, features="learned"
    )[0].eval()


def test_what_each_choice_trains(performer):
    everything = {name for name, _ in performer.named_parameters()}
    features = {id(parameter) for parameter in feature_parameters(performer)}
    feature_names = {name for name, parameter in performer.named_parameters() if id(parameter) in features}
    assert {name.rpartition(".")[2] for name in feature_names} == {"projection", "log_temperature"}
    expected = {
        "features": feature_names,
        "attention": {name for name in everything if ".attention." in name},
        "encoder": everything - {"bert.embeddings.word_embeddings.weight"},
        "all": everything,
    }
    for choice, names in expected.items():
        set_trainable(performer, stage_of("labels", train=choice))
        groups = parameter_groups(performer, stage_of("labels", train=choice), 0.01)
        assert names_trained(performer) == names, choice
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(grouped) == len(set(grouped)) == len(names)
    assert expected["features"] < expected["attention"] < expected["encoder"]


def test_a_shared_model_is_trainable_for_a_while_only(performer):
    performer.requires_grad_(False)
    parameter_groups(performer, stage_of("labels", train="all"), 0.0)
    assert not names_trained(performer)
    with trainable(performer, stage_of("labels", train="attention")):
        assert names_trained(performer)
        assert all(".attention." in name for name in names_trained(performer))
    assert not names_trained(performer)


def test_learning_rates_and_weight_decay_of_the_groups(performer):
    names = {id(parameter): name for name, parameter in performer.named_parameters()}

    def settings(**changes: object) -> dict[str, tuple[float, float]]:
        groups = parameter_groups(performer, stage_of("labels", train="all", **changes), 0.3)
        assert all(group["lr"] == group["initial_lr"] for group in groups)
        return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}

    got = settings()
    layer = "bert.encoder.layer.0."
    assert got[layer + "attention.self.log_temperature"] == (pytest.approx(1.0), 0.0)
    assert got[layer + "attention.self.projection"] == (pytest.approx(1.0), 0.0)
    assert got[layer + "attention.self.query.weight"] == (0.01, 0.3)
    assert got[layer + "attention.self.query.bias"] == (0.01, 0.0)
    assert got[layer + "output.LayerNorm.weight"] == (0.01, 0.0)
    assert got["classifier.weight"] == (0.01, 0.3)
    assert settings(feature_learning_rate=0.5)[layer + "attention.self.projection"][0] == 0.5


def test_lower_layers_learn_slower(make_bert):
    model = make_bert(num_layers=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, stage_of("labels", train="all", layer_decay=0.5), 0.3)
    got = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert set(got) == set(names.values())
    assert got["classifier.weight"] == got["bert.pooler.dense.weight"] == (0.01, 0.3)
    assert got["bert.encoder.layer.1.output.dense.weight"] == (0.005, 0.3)
    assert got["bert.encoder.layer.0.output.dense.bias"] == (0.0025, 0.0)
    assert got["bert.embeddings.word_embeddings.weight"] == (0.00125, 0.3)


@pytest.mark.parametrize("train", ["features", "attention", "encoder", "all"])
def test_what_a_student_keeps_frozen_no_stage_trains(train, make_bert):
    student = student_from_teacher(make_bert(num_layers=2), layer_map=[0, 1], attention="lstm", num_features=8)[0]
    set_trainable(student, stage_of("logits", train=train))
    groups = parameter_groups(student, stage_of("logits", train=train), 0.1)
    assert [group["lr"] for group in groups] == [pytest.approx(0.1)]
    own = {"lstm", "classifier"}
    assert {name.partition(".")[0] for name in names_trained(student)} == own
    assert not any(name.startswith("bert.") for name in names_trained(student))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_without_features_whole_attention_blocks_are_trained(attention, make_bert):
    student = student_from_teacher(make_bert(), layer_map=[0], attention=attention)[0]
    features = {id(parameter) for parameter in feature_parameters(student)}
    groups = parameter_groups(student, stage_of("labels", train="features"), 0.0)
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    blocks = {id(parameter) for name, parameter in student.named_parameters() if ".attention." in name}
    assert trained == (features or blocks)
    expected = 0.01 * ATTENTIONS[attention].feature_rate if features else 0.01
    assert {group["lr"] for group in groups} == {expected}


@pytest.mark.parametrize("train", ["features", "attention", "encoder", "all"])
def test_all_that_is_trained_moves_and_nothing_else(train, performer, make_bert, make_examples):
    teacher = freeze(make_bert(num_layers=2, seed=1))
    before = copy.deepcopy(performer.state_dict())
    stage = stage_of("logits", "hidden_states", train=train)
    # Without weight decay, which would move what has no gradient.
    set_trainable(performer, stage)
    optimizer = torch.optim.AdamW(parameter_groups(performer, stage, 0.0))
    for _ in range(2):
        values = run_stage(stage, teacher, performer, [0, 1], make_examples())
        torch.stack(list(values.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, tensor in performer.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == names_trained(performer)


@pytest.mark.parametrize(
    ("attention", "times"), [("performer", 100), ("hybrid", 100), ("linformer", 10), ("softmax", 10)]
)
def test_how_much_faster_features_learn_is_the_mechanisms_own(make_bert, attention, times):
    student, _ = student_from_teacher(
        make_bert(num_layers=2), layer_map=[0, 1], attention=attention, softmax_layers=[1]
    )
    assert default_feature_rate(student) == times
