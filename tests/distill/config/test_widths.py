"""Narrower students: sizes and stages that cannot be are refused, and the recipe narrows behind fewer layers."""

from dataclasses import replace

import pytest

from distill.config.recipe import DECISIONS, SUMMARIES, Facts, Mechanism, choose_recipe
from distill.config.schema import Config, StageConfig, StudentSettings
from distill.config.validation import check_config
from distill.utils.errors import UserError
from students import STUDENTS

STAGE = StageConfig("one", 1, 1e-4, {"logits": 1.0})
NARROW = StudentSettings(hidden_size=256)
FACTS = Facts(rows=1000, is_pair=False, long_share=0.0, hidden_size=384, is_narrower=True)
SOFTMAX = Mechanism(is_softmax=True, trains_layers=True, has_features=False)
LINEAR = Mechanism(is_softmax=False, trains_layers=True, has_features=True)


def refusal(*stages, **student) -> str:
    with pytest.raises(UserError) as refused:
        check_config(Config("sst2", student=StudentSettings(**student), stages=stages), STUDENTS)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "num_heads"])
def test_a_size_is_above_0(key):
    for size in (0, -8):
        assert refusal(**{key: size}) == f"student.{key} is {size}: give a number above 0, or null"
    assert f"student.{key} is 8: attention lstm keeps" in refusal(attention="lstm", **{key: 8})


@pytest.mark.parametrize("key", ["intermediate_size", "num_heads"])
@pytest.mark.parametrize("sizes", [[8, 8], [8, 8, 8, 8], [8, 8, 0], []])
def test_a_list_has_a_number_for_every_layer(key, sizes):
    expected = f"student.{key} is {sizes}: give student.num_layers = 3 numbers above 0"
    assert refusal(**{key: sizes}) == expected
    check_config(Config("sst2", student=StudentSettings(**{key: [8, 4, 2]})), STUDENTS)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"width": "ful"}], ("stages.one.width is 'ful'", "did you mean 'full'")),
        ([{"width": "full"}], ("add attention: softmax",)),
        (
            [{"attention": "softmax"}, {"name": "two", "attention": "softmax", "width": "full"}],
            ("stages.two.width is 'full'", "before the stages without it"),
        ),
    ],
)
def test_full_width_comes_first_and_with_softmax_attention(stages, words):
    message = refusal(*(replace(STAGE, **stage) for stage in stages), hidden_size=256)
    assert all(word in message for word in words)


def test_full_width_is_for_narrower_students():
    stage = replace(STAGE, attention="softmax", width="full")
    assert "the student has full width anyway" in refusal(stage)
    for sizes in ({"hidden_size": 8}, {"num_heads": 1}, {"intermediate_size": [1, 2, 3]}):
        narrow = Config("sst2", student=StudentSettings(**sizes), stages=(stage, replace(STAGE, name="two")))
        check_config(narrow, STUDENTS)


def names(facts, mechanism, **student):
    config = choose_recipe(Config("sst2", student=replace(NARROW, **student)), facts, mechanism)
    check_config(config, STUDENTS)
    return {stage.name: (stage.attention, stage.width) for stage in config.stages}, config.stages


def test_the_recipe_narrows_a_softmax_student_behind_fewer_layers():
    found, stages = names(FACTS, SOFTMAX, attention="softmax")
    full, own = ("softmax", "full"), (None, None)
    assert found == {"depth": full, "depth_logits": full, "width": own, "width_logits": own}
    assert [stage.keep_best_epoch for stage in stages] == [False, False, False, True]


def test_the_mechanism_comes_last():
    found, stages = names(FACTS, LINEAR)
    full, narrow, own = ("softmax", "full"), ("softmax", None), (None, None)
    softmax = {"depth": full, "depth_logits": full, "width": narrow, "width_logits": narrow}
    assert found == softmax | {"transfer": own, "layers": own, "logits": own}
    assert list(found) == [stage.name for stage in stages]
    by_length, _ = names(FACTS, LINEAR, exact_up_to=512)
    assert by_length == softmax | {"fit": own}


@pytest.mark.parametrize("matches", [SUMMARIES, DECISIONS])
def test_students_of_another_encoder_are_narrowed_too(matches):
    found, _ = names(replace(FACTS, matches=matches), SOFTMAX, attention="softmax", checkpoint="encoder")
    decisions = ["depth_logits", "width_logits"]
    assert list(found) == (decisions if matches == DECISIONS else ["depth", decisions[0], "width", decisions[1]])


def test_students_of_full_width_have_the_stages_that_they_had():
    found, _ = names(replace(FACTS, is_narrower=False), LINEAR)
    assert list(found) == ["depth", "depth_logits", "transfer", "layers", "logits"]
    assert {width for _, width in found.values()} == {None}
