"""Altered copies that a run chooses: what is taken, what is refused, and how the answer replaces the question."""

import json
from dataclasses import replace

import pytest

from distill.config.copies_choice import CopiesChoice, TriedCopies, choice_file, read_choice, with_copies
from distill.config.found import with_found
from distill.config.recipe import adopt
from distill.config.schema import AugmentationConfig, Config, StageConfig
from distill.config.validation import check_config
from distill.utils.errors import UserError
from distill.utils.record_json import to_json
from students import STUDENTS

STAGES = (
    StageConfig("depth", epochs=0.5, learning_rate=1e-3, losses={"logits": 1.0}),
    StageConfig("fit", epochs=4, learning_rate=1e-3, losses={"attention_output": 1.0}, texts="packed"),
)
ASKED = Config("mrpc", stages=STAGES, augmentation=AugmentationConfig(choose=True))
TRIED = (
    TriedCopies("none", 0.08, 0.92, 0.99, 1.0),
    TriedCopies("replace", 0.07, 0.93, 0.8, 1.0),
    TriedCopies("mix", 0.05, 0.94, 0.4, 1.0),
    TriedCopies("cut", 0.09, 0.91, 0.6, 1.0),
)
CHOICE = CopiesChoice(3, ["replace", "mix", "cut"], "f1", ["depth"], 500, 200, TRIED, is_finished=True)


def keep(choice, folder):
    choice_file(folder).parent.mkdir(parents=True, exist_ok=True)
    choice_file(folder).write_text(json.dumps(to_json(choice)))


def test_kinds_that_are_better_than_none_are_taken_best_first():
    assert CHOICE.chosen == ["mix", "replace"]
    assert (
        replace(CHOICE, tried=(replace(TRIED[0], divergence=0.05), *TRIED[1:])).chosen == []
    )  # as good is not better
    assert replace(CHOICE, tried=(TRIED[0], replace(TRIED[2], divergence=None))).chosen == []
    assert replace(CHOICE, tried=(replace(TRIED[0], divergence=None), *TRIED[1:])).chosen == ["mix", "replace", "cut"]


def test_a_chosen_configuration_asks_no_more():
    found = with_copies(ASKED, CHOICE)
    assert found == replace(ASKED, augmentation=AugmentationConfig(copies=3, kinds=["mix", "replace"]))


def test_without_copies_the_stages_keep_their_steps():
    found = with_copies(ASKED, replace(CHOICE, tried=(TRIED[0], TRIED[3])))
    assert found.augmentation.copies == 0
    assert [stage.epochs for stage in found.stages] == [1.25, 4]


def test_a_run_that_goes_on_knows_what_it_has_chosen(tmp_path):
    assert with_found(ASKED, tmp_path) == ASKED
    keep(replace(CHOICE, is_finished=False), tmp_path)
    assert with_found(ASKED, tmp_path) == ASKED
    keep(CHOICE, tmp_path)
    saved = with_found(replace(ASKED, augmentation=AugmentationConfig(choose=True, copies=3)), tmp_path)
    assert saved.augmentation.kinds == ["mix", "replace"]
    assert adopt(with_found(ASKED, tmp_path), saved) == saved
    for other in (
        replace(ASKED, augmentation=AugmentationConfig(choose=True, kinds=["mix"])),
        replace(ASKED, augmentation=AugmentationConfig(choose=True, copies=5)),
        replace(ASKED, augmentation=AugmentationConfig(copies=3)),
    ):
        assert with_found(other, tmp_path) == other


def test_a_run_without_copies_goes_on_without(tmp_path):
    keep(replace(CHOICE, tried=(TRIED[0], TRIED[3])), tmp_path)
    saved = with_found(ASKED, tmp_path)
    assert saved.augmentation.copies == 0
    assert adopt(with_found(replace(ASKED, stages=()), tmp_path), saved) == saved


def test_a_torn_choice_is_named(tmp_path):
    keep(CHOICE, tmp_path)
    choice_file(tmp_path).write_text(choice_file(tmp_path).read_text()[:40])
    with pytest.raises(UserError, match=r"choice\.json.*remove .*copies_choice to choose again"):
        read_choice(tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"copies": 0, "choose": True}, "augmentation.copies is 0"),
        ({"kinds": ["mix", "mix"], "choose": True}, "augmentation.kinds is"),
    ],
)
def test_what_cannot_be_chosen_is_refused(given, words):
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        check_config(replace(ASKED, augmentation=AugmentationConfig(**given)), STUDENTS)


@pytest.mark.parametrize("chosen", [["mix"], ["masked_lm", "cut"], []])
def test_what_is_chosen_is_a_configuration_by_itself(chosen):
    settings = AugmentationConfig(choose=True, kinds=["mix", "cut", "masked_lm"], masked_lm="somewhere")
    tried = [TriedCopies(kind, 0.05 if kind in chosen else 0.09, None, None, 1.0) for kind in settings.kinds]
    choice = CopiesChoice(3, settings.kinds, "f1", ["depth"], 400, 100, (TRIED[0], *tried), is_finished=True)
    found = with_copies(replace(ASKED, augmentation=settings), choice)
    assert set(choice.chosen) == set(chosen)
    check_config(found, STUDENTS)


def test_language_models_have_no_copies_to_choose():
    config = Config("text", model="masked", stages=STAGES[:1], augmentation=AugmentationConfig(choose=True))
    with pytest.raises(UserError, match=r"augmentation\.choose"):
        check_config(config, STUDENTS)
