"""Task text: what it has not is refused, and so are its keys elsewhere."""

import pytest

from distill.config.data_schema import DataConfig
from distill.config.schema import (
    AugmentationConfig,
    BaselineConfig,
    Config,
    StageConfig,
    StudentSettings,
    TeacherConfig,
)
from distill.config.text_recipe import choose_text_recipe
from distill.config.validation import check_config
from distill.utils.errors import UserError
from students import STUDENTS

LINEAR = StudentSettings(attention="linear")


def config(model="causal", student=LINEAR, **sections):
    return Config("text", model=model, student=student, **sections)


def refusal(given):
    with pytest.raises(UserError) as refused:
        check_config(given, STUDENTS)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("model", ["causal", "masked"])
def test_a_plain_one_is_fine(model):
    check_config(config(model), STUDENTS)


def test_the_kind_of_model_is_asked_for():
    assert "choose one of causal, masked" in refusal(config(None))
    assert "did you mean 'causal'" in refusal(config("casual"))


@pytest.mark.parametrize(
    "name", [name for name, each in STUDENTS.items() if getattr(each, "why_not_causal", "") is not None]
)
def test_a_mechanism_without_causal_form_is_refused_with_the_reason(name):
    said = refusal(config(student=StudentSettings(attention=name)))
    assert said.startswith(f"student.attention is {name!r}")
    if name != "lstm":
        assert STUDENTS[name].why_not_causal in said
        assert "choose one of" in said
        check_config(config("masked", student=StudentSettings(attention=name)), STUDENTS)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (config(student=StudentSettings(attention="linear", hidden_size=64)), "student.hidden_size"),
        (config(student=StudentSettings(attention="linear", target_speedup=3.0)), "student.target_speedup"),
        (config("masked", StudentSettings(attention="performer", exact_up_to=64)), "student.exact_up_to"),
        (config(baseline=BaselineConfig(checkpoint="some-bert")), "baseline.checkpoint"),
        (config(augmentation=AugmentationConfig(copies=2)), "augmentation.copies"),
        (config(data=DataConfig(unlabelled="more.txt")), "data.unlabelled"),
        (config(data=DataConfig(text_unit="syllable")), "data.text_unit"),
        (config(stages=(StageConfig("a", 1, 1e-3, {"attention_map": 1.0}),)), "stages.a.losses"),
        (
            config(stages=(StageConfig("a", 1, 1e-3, {"logits": 1.0}, last_layer="first_token"),)),
            "stages.a.last_layer",
        ),
        (config(stages=(StageConfig("a", 1, 1e-3, {"hidden_states": 1.0}, texts="packed"),)), "stages.a.texts"),
        (
            config(stages=(StageConfig("a", 1, 1e-3, {"logits": 1.0}),), teacher=TeacherConfig(None, epochs=0)),
            "stages is",
        ),
        (config(teacher=TeacherConfig("some-model", epochs=0)), "teacher.checkpoint"),
        (config(teacher=TeacherConfig(None, epochs=0), baseline=BaselineConfig(epochs=0)), "baseline.epochs is 0"),
        (Config("sst2", model="causal"), "model is"),
        (Config("sst2", data=DataConfig(text_unit="byte")), "data.text_unit"),
        (Config("sst2", teacher=TeacherConfig(epochs=0)), "teacher.epochs"),
    ],
)
def test_what_it_has_not_is_refused_by_its_key(given, key):
    assert refusal(given).startswith(key)


def test_the_recipe_fits_the_text():
    given = config(teacher=TeacherConfig(None, batch_size=None), baseline=BaselineConfig(batch_size=None))
    short, long = (choose_text_recipe(given, rows, from_scratch=True) for rows in (100, 1_000_000))
    assert short.teacher.batch_size == long.teacher.batch_size == 8192 // 128
    assert short.teacher.epochs == 20
    assert long.teacher.epochs == 1
    assert [stage.name for stage in short.stages] == ["layers", "logits"]
    decisions = short.stages[-1]
    assert decisions.dropout, "a short text is learned by heart else"
    assert decisions.keep_best_epoch
    assert decisions.learning_rate < short.stages[0].learning_rate
    assert short.baseline.epochs == sum(stage.epochs for stage in short.stages)
    alone = choose_text_recipe(config(teacher=TeacherConfig(None, epochs=0)), 1000, from_scratch=True)
    assert alone.stages == ()
    assert alone.baseline.epochs > 0
