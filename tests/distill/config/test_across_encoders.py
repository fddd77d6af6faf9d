"""What a student that is made of another encoder than its teacher can be asked for, and what it is given."""

import pytest

from distill.config.recipe import DECISIONS, LAYERS, SUMMARIES, Facts, Mechanism, choose_recipe
from distill.config.schema import Config, StageConfig, StudentSettings, TeacherConfig
from distill.config.validation import check_config
from distill.utils.errors import UserError
from students import STUDENTS

START = "encoder"


def config(teacher=None, stage=None, **student) -> Config:
    base = {"name": "depth", "epochs": 1, "learning_rate": 1e-4, "losses": {"logits": 1.0}}
    stages = () if stage is None else (StageConfig(**base | {"attention": "softmax"}), StageConfig(**base | stage))
    settings = StudentSettings(**{"checkpoint": START} | student)
    return Config("sst2", teacher=teacher or TeacherConfig(), student=settings, stages=stages)


def refusal(**settings) -> str:
    with pytest.raises(UserError) as refused:
        check_config(config(**settings), STUDENTS)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("loss", ["attention_output", "attention_context", "attention_map", "value_relations"])
def test_a_loss_of_every_token_is_refused_with_those_that_are_not(loss):
    message = refusal(stage={"name": "two", "losses": {"logits": 1.0, loss: 1.0}})
    assert message.startswith(f"stages.two.losses is {loss!r}: student.checkpoint encoder reads other tokens")
    assert "hidden_states, logits, labels" in message
    assert "stages: auto" in message


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        ({"inputs": "teacher", "losses": {"attention_output": 1.0}}, "losses"),
        ({"texts": "packed"}, "texts"),
    ],
)
def test_what_the_teacher_cannot_give_is_refused(stage, key):
    assert refusal(stage={"name": "two"} | stage).startswith(f"stages.two.{key} is ")


def test_the_softmax_student_gives_everything():
    stage = {"name": "two", "targets": "softmax_student", "inputs": "teacher", "losses": {"attention_output": 1.0}}
    check_config(config(stage=stage), STUDENTS)


def test_layers_cannot_be_chosen_by_a_teacher_that_they_are_not_of():
    assert refusal(layer_map="importance").startswith("student.layer_map is 'importance': it counts the teacher's")
    check_config(config(layer_map="last"), STUDENTS)


def test_code_is_trusted_only_of_a_teacher_of_any_kind():
    trusting = TeacherConfig(trust_remote_code=True)
    check_config(config(teacher=trusting), STUDENTS)
    message = refusal(teacher=trusting, checkpoint=None)
    assert message.startswith("teacher.trust_remote_code is true: ")
    assert "student.checkpoint" in message


@pytest.mark.parametrize("matches", [SUMMARIES, DECISIONS])
@pytest.mark.parametrize(
    ("attention", "exact_up_to"), [("performer", 0), ("performer", 512), ("softmax", 0), ("lstm", 0)]
)
def test_the_recipe_matches_what_there_is(matches, attention, exact_up_to):
    """And by nothing else: the same list of stages as ever, without the losses that need the teacher's tokens."""
    kind = STUDENTS[attention]
    mechanism = Mechanism(attention == "softmax", kind.trains_layers, has_features=attention == "performer")

    def recipe(matching: str) -> Config:
        facts = Facts(rows=1000, is_pair=False, long_share=0.5, hidden_size=384, matches=matching)
        return choose_recipe(config(attention=attention, exact_up_to=exact_up_to), facts, mechanism)

    chosen, usual = recipe(matches), recipe(LAYERS)
    check_config(chosen, STUDENTS)
    of_teacher = [stage for stage in chosen.stages if stage.targets == "teacher"]
    wanted = {"hidden_states", "logits", "labels"} if matches == SUMMARIES else {"logits", "labels"}
    assert {loss for stage in of_teacher for loss in stage.losses} <= wanted
    matched = [stage for stage in of_teacher if "hidden_states" in stage.losses]
    assert len(matched) == (1 if matches == SUMMARIES and attention != "lstm" else 0)
    dropped = 1 if matches == DECISIONS and attention != "lstm" else 0
    assert [stage.name for stage in chosen.stages] == [stage.name for stage in usual.stages][dropped:]
    assert [stage for stage in chosen.stages if stage.targets != "teacher"] == [
        stage for stage in usual.stages if stage.targets != "teacher"
    ]
