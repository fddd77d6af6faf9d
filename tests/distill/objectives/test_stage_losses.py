"""What a stage makes of what it reads: losses and gradients, and which part of the student they reach."""

import numpy as np
import pytest
import torch
from helpers.closeness import LAST_BITS, assert_close
from helpers.short_stages import stage_of

from distill.config.schema import LOSSES
from distill.data.batching import collate
from distill.models.hooks import capture
from distill.objectives.capture_plan import CapturePlan, StageModel, plan_stage
from distill.objectives.losses import masked_mse
from distill.objectives.stage_losses import compute_losses
from students import student_from_teacher
from teachers.loading import freeze
from teachers.outputs import OnlineTeacherOutputs, head_size_of

COMMON_LOSSES = [name for name in LOSSES if name != "compression"]  # that one is Compressive attention's


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
    with torch.no_grad(), capture(student, {"layer_input": [0, 1]}) as own:
        expected = free(inputs)["attention_output"]
        forced = StageModel(student, plan)(inputs, own["layer_input"])["attention_output"]
    for layer in [0, 1]:
        assert_close(forced[layer], expected[layer], LAST_BITS)
