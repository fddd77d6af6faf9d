"""Every loss with every mechanism: what can be compared with a teacher, and what stands in for what cannot."""

import numpy as np
import pytest
import torch

from distill.config.schema import LAYER_LOSSES, Config, StageConfig, StudentSettings
from distill.config.validation import check_config
from distill.data.batching import collate
from distill.objectives.capture_plan import StageModel, plan_stage
from distill.objectives.loss_fallbacks import replace_unsupported_losses
from distill.objectives.stage_losses import compute_losses
from distill.training.optimizer import parameter_groups
from distill.utils.errors import UserError
from distill.utils.findings import WARNING
from students import ATTENTIONS, STUDENTS, student_from_teacher
from teachers.loading import freeze
from teachers.outputs import OnlineTeacherOutputs

MAPS = {
    *("softmax", "memory_efficient", "scaling", "knn", "bigbird", "sparse", "transformer_xl"),
    *("performer", "linear", "t2r", "hedgehog", "luna_kernel", "taylor", "cosformer", "lion", "scatterbrain"),
    "hybrid",
}
"""Mechanisms whose output is a matrix of nonnegative weights times the values."""
NO_CONTEXT = {"aft", "fastformer", "fnet", "lsra"}
NO_VALUES = {"fastformer", "fnet", "lsra"}


def config_of(attention: str, losses: dict[str, float], options=(), **settings: object) -> Config:
    stage = StageConfig("layers", 1, 0.01, losses, **settings)
    student = StudentSettings(attention=attention, attention_options=dict(options))
    return Config("sst2", stages=(stage, StageConfig("end", 1, 0.01, {"logits": 1.0})), student=student)


def illegal(name: str) -> list[str]:
    without = {"attention_map": set(ATTENTIONS) - MAPS, "attention_context": NO_CONTEXT, "value_relations": NO_VALUES}
    without |= {"query_relations": {"fnet", "lsra"}, "key_relations": {"fnet", "lsra", "reformer"}}
    return [loss for loss in LAYER_LOSSES if name in without.get(loss, ())]


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_attention_output_stands_in_for_what_a_mechanism_lacks(name):
    config = config_of(name, dict.fromkeys(LAYER_LOSSES, 0.5))
    check_config(config, STUDENTS)
    legal, findings = replace_unsupported_losses(config, STUDENTS[name])
    missing = illegal(name)
    expected = {loss: 0.5 for loss in LAYER_LOSSES if loss not in missing}
    assert legal.stages[0].losses == expected | {"attention_output": 0.5 * (1 + len(missing))}
    assert legal.stages[1] == config.stages[1]
    assert [finding.level for finding in findings] == [WARNING] * bool(missing)
    for finding in findings:
        assert f"{name} attention has no" in finding.line
        assert all(loss in finding.line for loss in missing)
        assert "\n" not in finding.line
    assert replace_unsupported_losses(legal, STUDENTS[name]) == (legal, [])


@pytest.mark.parametrize("inputs", ["student", "teacher"])
@pytest.mark.parametrize("train", ["features", "attention"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_loss_that_is_left_can_be_computed_and_trained(name, train, inputs, make_bert, make_examples):
    teacher = freeze(make_bert())
    options = ATTENTIONS[name].small_options
    # Fewer than the texts have tokens: what is exact from the start has nothing to learn.
    features = 4 if ATTENTIONS[name].uses_num_features else None
    student, _ = student_from_teacher(
        teacher, layer_map=[0, 1], attention=name, attention_options=options, num_features=features
    )
    tokens, labels = collate(make_examples(), np.arange(6))
    batch = tokens | {"labels": labels}
    forced = ("attention_output", "attention_context", "attention_map")
    for loss in forced if inputs == "teacher" else LAYER_LOSSES:
        config = config_of(name, {loss: 1.0}, options, train=train, inputs=inputs)
        stage = replace_unsupported_losses(config, ATTENTIONS[name])[0].stages[0]
        plan = plan_stage(stage, [0, 1], 2)
        parameters = [parameter for group in parameter_groups(student, stage, 0.0) for parameter in group["params"]]
        outputs = OnlineTeacherOutputs(teacher, plan).batch(np.arange(6), tokens)
        values = compute_losses(
            stage, StageModel(student, plan)(tokens, outputs.get("layer_input")), outputs, batch, 16
        )
        total = torch.stack(list(values.values())).sum()
        assert total.isfinite(), loss
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients), loss


def test_the_map_of_arc_cosines_is_compared_and_that_of_gaussians_is_not():
    for options, legal in (({"kernel": "arccos"}, True), ({"kernel": "gaussian"}, False), ({}, False)):
        config = config_of("rfa", {"attention_map": 1.0}, options)
        assert (replace_unsupported_losses(config, ATTENTIONS["rfa"])[0] == config) is legal


def test_what_nothing_stands_in_for_is_refused():
    with pytest.raises(UserError, match="lstm keeps its layers as they are"):
        check_config(config_of("lstm", {"attention_context": 1.0}), STUDENTS)
    with pytest.raises(UserError, match="longformer attention has none; leave it out"):
        check_config(config_of("longformer", {"compression": 1.0}), STUDENTS)
    config = config_of("lstm", {"logits": 1.0})
    assert replace_unsupported_losses(config, STUDENTS["lstm"]) == (config, [])


def test_a_map_on_its_pattern_can_be_that_of_the_teacher_exactly(make_bert, make_examples):
    """Outside the pattern nothing is asked: rows that are the teacher's, cut and rescaled, are right."""
    teacher = freeze(make_bert(num_layers=1))
    student, _ = student_from_teacher(teacher, layer_map=[0], attention="knn", attention_options={"neighbours": 2})
    tokens, labels = collate(make_examples(), np.arange(6))
    batch = tokens | {"labels": labels}
    stage = config_of("knn", {"attention_map": 1.0}).stages[0]
    plan = plan_stage(stage, [0], 1)
    outputs = OnlineTeacherOutputs(teacher, plan).batch(np.arange(6), tokens)
    values = compute_losses(stage, StageModel(student.eval(), plan)(tokens), outputs, batch, 16)
    assert values["attention_map"].abs().max() < 1e-5
