"""The recipe is made of optimizer steps, has a floor for few examples and a ceiling for many."""

import math
from dataclasses import replace

import pytest

from distill.config.recipe import MIN_ROWS, Facts, Mechanism, adopt, choose_recipe, epochs_of, teacher_rate
from distill.config.schema import (
    AugmentationConfig,
    BaselineConfig,
    Config,
    StageConfig,
    StudentSettings,
    TeacherConfig,
    TrainingConfig,
)
from distill.config.validation import check_config
from distill.utils.errors import UserError
from students import STUDENTS

SINGLE = Facts(rows=1000, is_pair=False, long_share=0.0, hidden_size=384)
LEARNED = Mechanism(is_softmax=False, trains_layers=True, has_features=True)
BY_LENGTH = StudentSettings(exact_up_to=512, features="learned")


def recipe(facts=SINGLE, mechanism=LEARNED, **settings):
    return choose_recipe(Config("sst2", **({"student": BY_LENGTH} | settings)), facts, mechanism)


def steps(stage, texts):
    return math.ceil(math.ceil(texts / stage.batch_size) * stage.epochs)


@pytest.mark.parametrize("rows", [16, 100, 1000, 10_000, 67_000, 400_000])
@pytest.mark.parametrize("is_pair", [False, True])
def test_every_phase_has_hundreds_of_steps_and_no_more_than_thousands(rows, is_pair):
    config = recipe(replace(SINGLE, rows=rows, is_pair=is_pair), student=StudentSettings())
    texts = rows * (1 + config.augmentation.copies)
    for stage in config.stages:
        assert 250 <= steps(stage, texts) <= 5400, stage.name
    for section in (config.teacher, config.baseline):
        assert 280 <= steps(section, rows) <= 4400


@pytest.mark.parametrize(
    ("rows", "wanted"), [(100, 300), (1000, 5 * 63), (1800, 5 * 113), (2500, 600), (10_000, 3 * 625), (67_000, 8000)]
)
def test_a_teacher_of_few_rows_sees_them_five_times(rows, wanted):
    """Three passes left CoLA's larger class the only answer; many rows need three, or fewer."""
    teacher = TeacherConfig(batch_size=16)
    chosen = recipe(replace(SINGLE, rows=rows), teacher=teacher).teacher
    assert steps(chosen, rows) == pytest.approx(wanted, rel=0.05)  # epochs are in tenths


@pytest.mark.parametrize("longest", [20, 512, 700, 2048, 100_000])
def test_a_batch_of_long_texts_needs_no_more_memory_than_one_of_512_tokens(longest):
    open_batches = {"teacher": TeacherConfig(batch_size=None), "baseline": BaselineConfig(batch_size=None)}
    config = recipe(replace(SINGLE, longest=longest, long_share=0.5), **open_batches)
    stages = [stage for stage in config.stages if stage.texts != "packed"]
    sizes = [part.batch_size for part in (config.teacher, config.baseline, *stages)]
    assert all(size == 1 or size * longest <= 32 * 512 for size in sizes)
    assert sizes[:2] == ([16, 16] if longest <= 512 else [max(1, 16 * 512 // longest)] * 2)
    assert min(steps(stage, 1000) for stage in stages) >= 300
    assert recipe(replace(SINGLE, longest=longest)).teacher.batch_size == 32, "what is given stays"


def test_smaller_batches_of_labels_take_smaller_steps():
    assert teacher_rate(768, 16) == teacher_rate(768, 64) == 2 * teacher_rate(768, 4)


def test_more_rows_mean_more_steps_but_fewer_epochs():
    few, many = recipe(), recipe(replace(SINGLE, rows=50_000))
    for name in ("teacher", "baseline"):
        assert getattr(few, name).epochs > getattr(many, name).epochs
    assert steps(few.stages[0], 1000) < steps(many.stages[0], 50_000)
    assert many.stages[0].epochs < 1


def test_a_recipe_is_an_ordinary_configuration():
    for name, mechanism in STUDENTS.items():
        student = StudentSettings(attention=name)
        kind = Mechanism(name == "softmax", mechanism.trains_layers, True)
        check_config(recipe(mechanism=kind, student=student), STUDENTS)
    check_config(recipe(), STUDENTS)


@pytest.mark.parametrize(
    ("student", "mechanism", "long_share", "expected"),
    [
        (StudentSettings("softmax"), Mechanism(True, True, False), 0, ["layers", "logits"]),
        (StudentSettings("lstm"), Mechanism(False, False, True), 0, ["logits"]),
        (StudentSettings(), LEARNED, 0, ["depth", "depth_logits", "transfer", "layers", "logits"]),
        (BY_LENGTH, LEARNED, 0, ["depth", "depth_logits", "fit"]),
        (BY_LENGTH, LEARNED, 0.2, ["depth", "depth_logits", "fit", "layers", "logits", "refit"]),
        (replace(BY_LENGTH, attention="bigbird"), Mechanism(False, True, False), 0, ["depth", "depth_logits"]),
    ],
)
def test_stages_by_student(student, mechanism, long_share, expected):
    config = recipe(replace(SINGLE, long_share=long_share), mechanism, student=student)
    assert [stage.name for stage in config.stages] == expected


def test_fitting_leaves_the_exact_form_alone():
    fit = recipe().stages[-1]
    assert (fit.targets, fit.texts, fit.train) == ("exact_form", "packed", "features")


def test_copies_where_pairs_are_few():
    for rows, is_pair, copies in ((1000, False, 0), (8000, False, 0), (8000, True, 3), (300_000, True, 0)):
        assert recipe(replace(SINGLE, rows=rows, is_pair=is_pair)).augmentation.copies == copies
    asked = recipe(replace(SINGLE, is_pair=True), augmentation=AugmentationConfig(copies=1))
    assert asked.augmentation.copies == 1


@pytest.mark.parametrize(
    ("unlabelled", "layer_steps", "logit_steps"),
    [
        (0, 600, 300),
        (1000, 600, 300),
        (9000, 2500, 1250),
        (30_000, 2500, 2000),
        (99_000, 6250, 3125),
        (10**8, *[10_000] * 2),
    ],
)
def test_texts_without_labels_lengthen_the_stages_alone(unlabelled, layer_steps, logit_steps):
    config = recipe(replace(SINGLE, unlabelled=unlabelled), student=StudentSettings())
    texts = 1000 + unlabelled
    for stage in config.stages:
        wanted = layer_steps if "attention_output" in stage.losses else logit_steps
        wanted *= 2 if stage.name == "transfer" else 1
        assert steps(stage, texts) == pytest.approx(wanted, rel=0.05), stage.name  # epochs have two digits
    alone = recipe(student=StudentSettings())
    assert (config.teacher, config.baseline) == (alone.teacher, alone.baseline)


def test_no_copies_beside_as_many_texts_without_labels():
    for unlabelled, copies in ((0, 3), (2999, 3), (3000, 0)):
        assert recipe(replace(SINGLE, is_pair=True, unlabelled=unlabelled)).augmentation.copies == copies


def test_what_is_said_stays():
    stage = StageConfig("mine", 1, 1e-3, {"logits": 1.0})
    config = recipe(stages=(stage,), teacher=TeacherConfig(epochs=2, learning_rate=1e-5))
    assert config.stages == (stage,)
    assert (config.teacher.epochs, config.teacher.learning_rate) == (2, 1e-5)
    assert config.baseline.epochs is None
    assert config.augmentation.copies == 0
    assert recipe(baseline=BaselineConfig(epochs=0)).baseline.epochs == 0


def test_narrower_teachers_learn_faster():
    assert teacher_rate(768) == 7e-5
    assert teacher_rate(1024) < 7e-5 < teacher_rate(384) < teacher_rate(128) <= 2e-3


def test_lower_layers_learn_slower_unless_the_rate_is_given():
    assert recipe().teacher.layer_decay == 0.8
    assert recipe(teacher=TeacherConfig(learning_rate=1e-5)).teacher.layer_decay == 1.0
    assert recipe(teacher=TeacherConfig(layer_decay=0.9)).teacher.layer_decay == 0.9


def test_epochs():
    assert epochs_of(300, 1000, 32) == 9.4
    assert epochs_of(1000, 67_000, 16) == 0.24
    assert epochs_of(10_000, 10**8, 16) == 0.0016


def test_two_rows_make_no_recipe():
    with pytest.raises(UserError, match=f"train has 2 examples .* {MIN_ROWS}"):
        recipe(replace(SINGLE, rows=2))


def test_a_run_that_goes_on_keeps_what_it_chose():
    begun = replace(recipe(), training=TrainingConfig(mixed_precision="bf16"))
    again = adopt(Config("sst2", student=BY_LENGTH), begun)
    assert again == begun
    earlier = replace(begun, augmentation=AugmentationConfig(copies=0, kinds=["replace"]))
    assert adopt(Config("sst2", student=BY_LENGTH), earlier) == earlier
    asked = Config("sst2", student=BY_LENGTH, training=TrainingConfig(mixed_precision="no"))
    assert adopt(asked, begun).training.mixed_precision == "no"
