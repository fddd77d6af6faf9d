"""Mechanisms that are found for every layer: what is refused and taken, and how the answer replaces the question."""

import json
from dataclasses import replace

import pytest

from distill.config.attention_fit import (
    AttentionFit,
    TriedAttention,
    fit_file,
    mechanism_of_student,
    read_fit,
    with_found_attention,
)
from distill.config.schema import Config, StudentSettings
from distill.config.validation import check_config
from distill.utils.errors import UserError
from distill.utils.record_json import to_json
from students import ATTENTIONS, STUDENTS

ASKED = Config("sst2", student=StudentSettings(attention="fit", fit_attentions=["linear", "abc", "taylor"]))
TRIED = (
    TriedAttention("linear", [0.95, 0.5, 0.2], 1.0, 2.0, 1.9, 2.1),
    TriedAttention("abc", [0.97, 0.92, 0.6], 1.0, 1.2, 1.1, 1.3),
    TriedAttention("taylor", [0.99, 0.91, 0.6], 1.0, 1.5, 1.4, 1.6),
)
FIT = AttentionFit(
    0.9, ["linear", "abc", "taylor"], 128, "cpu", "float32", [], TRIED, chosen=["linear", "taylor", "taylor"]
)


def test_the_fastest_that_is_good_enough_is_taken_or_else_the_best():
    assert [FIT.best(layer).attention for layer in (0, 1, 2)] == ["linear", "taylor", "taylor"]
    assert FIT.why(0) == "linear, the fastest of 3 that reach 0.9 (0.950)"
    assert FIT.why(1) == "taylor, the fastest of 2 that reach 0.9 (0.910)"
    assert FIT.why(2) == "taylor, which explains most (0.600); none reaches 0.9"
    strict = replace(FIT, fidelity=0.915)
    assert strict.best(1).attention == "abc"
    assert strict.why(1) == "abc, the only one that reaches 0.915 (0.920)"
    assert replace(FIT, kept=[2]).why(2) == "softmax, as student.softmax_layers says"


def test_times_that_cannot_be_told_from_each_other_do_not_decide():
    close = (TRIED[0], replace(TRIED[1], speedup=1.4, high=1.45), TRIED[2])
    fit = replace(FIT, tried=close)
    assert fit.best(1).attention == "abc"
    assert fit.why(1) == "abc, which explains most (0.920) of 2 that reach 0.9, whose speeds cannot be told apart"
    slow = TriedAttention("performer", [0.9, 0.99, 0.9], 1.0, 0.5, 0.4, 0.6)
    fit = replace(FIT, tried=(*close, slow))
    assert fit.best(1).attention == "abc"
    assert fit.why(1) == "abc, which explains most (0.920) of the 2 fastest of 3 that reach 0.9"


def test_what_could_not_be_trained_is_never_taken():
    tried = (replace(TRIED[0], fidelity=None), *TRIED[1:])
    broken = replace(FIT, tried=tried)
    assert [broken.best(layer).attention for layer in (0, 1, 2)] == ["taylor", "taylor", "taylor"]
    assert broken.why(0) == "taylor, the fastest of 2 that reach 0.9 (0.990)"


@pytest.mark.parametrize(("high", "taken"), [(1.5, "abc"), (1.49, "linear")])
def test_intervals_that_touch_are_not_told_apart(high, taken):
    fast = TriedAttention("linear", [0.9], 1.0, 1.6, 1.5, 1.7)
    other = TriedAttention("abc", [0.95], 1.0, 1.4, 1.3, high)
    fit = replace(FIT, tried=(fast, other))  # of which the first reaches what was asked for and no more
    assert fit.best(0).attention == taken


def test_one_that_could_not_be_timed_says_nothing_of_the_others():
    untimed = replace(TRIED[1], speedup=None, low=None, high=None)
    fit = replace(FIT, tried=(TRIED[0], untimed, TRIED[2], replace(TRIED[2], attention="t2r", speedup=1.45)))
    assert fit.why(1) == "taylor, which explains most (0.910) of the 2 fastest of 3 that reach 0.9"


def test_what_is_slower_than_another_one_for_certain_is_not_taken_for_the_noise_of_a_third():
    noisy, fast, slow = (
        TriedAttention(name, [share], 1.0, *speed)
        for name, share, speed in (
            ("linear", 0.91, (2.0, 0.5, 8.0)),
            ("abc", 0.92, (1.5, 1.45, 1.55)),
            ("taylor", 0.99, (0.6, 0.58, 0.62)),
        )
    )
    assert replace(FIT, tried=(noisy, fast, slow)).best(0).attention == "abc"


def test_what_could_not_be_timed_is_taken_where_nothing_else_is_good_enough():
    untimed = replace(TRIED[0], speedup=None, low=None, high=None)
    assert replace(FIT, tried=(untimed, *TRIED[1:])).best(0).attention == "taylor"
    assert replace(FIT, tried=(untimed, *TRIED[1:]), fidelity=0.995).best(0).attention == "taylor"
    alone = replace(FIT, tried=(untimed, replace(TRIED[1], fidelity=[0.5, 0.5, 0.5])))
    assert alone.best(0).attention == "linear"


def test_of_those_that_explain_as_much_the_faster_one_is_taken():
    strict = replace(FIT, fidelity=0.95)
    assert strict.best(2).attention == "taylor"


def test_where_nothing_could_be_timed_the_reason_says_so():
    untimed = tuple(replace(each, speedup=None, low=None, high=None) for each in TRIED)
    fit = replace(FIT, tried=untimed)
    assert fit.best(1).attention == "abc"
    assert fit.why(1) == "abc, which explains most (0.920) of 2 that reach 0.9, none of which could be timed"


def test_speeds_of_another_place_are_not_set_beside_new_ones_but_a_choice_stays():
    begun = replace(FIT, chosen=None)
    assert begun.goes_on("cpu", "float32")
    assert not begun.goes_on("cuda", "float32")
    assert not begun.goes_on("cpu", "bfloat16")
    assert FIT.goes_on("cuda", "bfloat16")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fit_fidelity": 0.0}, ("student.fit_fidelity is 0.0", "between 0 and 1")),
        ({"fit_fidelity": 1.0}, ("student.fit_fidelity is 1.0",)),
        ({"fit_attentions": ["abc"]}, ("student.fit_attentions is ['abc']", "two or more")),
        ({"fit_attentions": ["abc", "abc"]}, ("student.fit_attentions", "different")),
        ({"fit_attentions": ["abc", "lstm"]}, ("student.fit_attentions is 'lstm'",)),
        ({"fit_attentions": ["abc", "hedgehg"]}, ("student.fit_attentions is 'hedgehg'", "hedgehog")),
        ({"target_speedup": 4.0}, ("student.attention is 'fit'", "leave one of them out")),
        ({"attention_options": {"window": 4}}, ("fit has no option 'window'", "dimensions")),
        ({"exact_up_to": 64}, ("fit attention has linear, which is no estimate", "set student.exact_up_to 0")),
        ({"attention": "fti"}, ("student.attention is 'fti'", "'fit'")),
        ({"attention": ["abc", "abc"]}, ("student.num_layers = 3 names",)),
        ({"attention": ["abc", "lstm", "abc"]}, ("student.attention is 'lstm'",)),
        ({"attention": ["abc", "fit", "abc"]}, ("student.attention is 'fit'",)),
        ({"attention": ["abc", "abc", "linear"], "target_speedup": 4.0}, ("several depths",)),
        ({"attention": ["luna", "abc", "abc"], "num_features": [8, 8, 8]}, ("luna+abc+abc has one for all layers",)),
    ],
)
def test_what_cannot_be_fitted_or_mixed_is_refused_in_one_line(given, words):
    with pytest.raises(UserError) as refused:
        check_config(replace(ASKED, student=replace(ASKED.student, **given)), STUDENTS)
    assert "\n" not in str(refused.value)
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_one_name_per_layer_is_taken_with_options_of_each():
    mixed = replace(ASKED.student, attention=["taylor", "abc", "performer"])
    check_config(
        replace(ASKED, student=replace(mixed, attention_options={"dimensions": 8, "kernel": "relu"})), STUDENTS
    )


def test_before_it_is_known_all_that_are_tried_answer():
    assert list(mechanism_of_student(ASKED.student, STUDENTS).mechanisms) == ["linear", "abc", "taylor"]
    assert mechanism_of_student(replace(ASKED.student, attention="abc"), STUDENTS) is ATTENTIONS["abc"]


def written(tmp_path, fit):
    path = fit_file(tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(fit)))
    return path


def test_the_answer_takes_the_place_of_the_question(tmp_path):
    assert read_fit(tmp_path) is None
    assert with_found_attention(ASKED, tmp_path) == ASKED
    written(tmp_path, replace(FIT, chosen=None))
    assert with_found_attention(ASKED, tmp_path) == ASKED
    written(tmp_path, FIT)
    assert read_fit(tmp_path) == FIT
    assert with_found_attention(ASKED, tmp_path).student == replace(ASKED.student, attention=FIT.chosen)


def test_options_that_no_chosen_mechanism_has_are_left_out(tmp_path):
    asked = replace(ASKED, student=replace(ASKED.student, attention_options={"dimensions": 8}))
    check_config(asked, STUDENTS)
    written(tmp_path, replace(FIT, chosen=["linear", "abc", "abc"]))
    found = with_found_attention(asked, tmp_path)
    assert found.student.attention_options == {}
    check_config(found, STUDENTS)
    written(tmp_path, replace(FIT, options={"dimensions": 8}))
    assert with_found_attention(asked, tmp_path).student.attention_options == {"dimensions": 8}


def test_the_same_mechanism_in_every_layer_is_one_name(tmp_path):
    written(tmp_path, replace(FIT, chosen=["abc"] * 3))
    assert with_found_attention(ASKED, tmp_path).student.attention == "abc"


def test_layers_that_keep_softmax_are_asked_nothing_else():
    mixed = replace(ASKED.student, attention=["abc", "abc", "linear"], softmax_layers=[-1], exact_up_to=64)
    check_config(replace(ASKED, student=mixed), STUDENTS)


@pytest.mark.parametrize("given", [{"fit_fidelity": 0.8}, {"fit_attentions": ["linear", "abc"]}, {"attention": "abc"}])
def test_the_answer_to_another_question_is_none(tmp_path, given):
    written(tmp_path, FIT)
    other = replace(ASKED, student=replace(ASKED.student, **given))
    assert with_found_attention(other, tmp_path) == other


def test_a_torn_file_names_the_way_out(tmp_path):
    path = written(tmp_path, FIT)
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=r"remove .*attention_fit to fit again"):
        read_fit(tmp_path)
    path.write_text('{"fidelity": 1}')
    with pytest.raises(UserError, match=r"remove .*attention_fit to fit again"):
        read_fit(tmp_path)
