"""The verdict leads with what speaks against the student, and a gate can ask for the gain."""

import pytest
from helpers.records import sample_json, typed

from distill.reporting.verdict import parse_requirements, unmet_requirements, verdict, verdict_sentences


@pytest.fixture
def record():
    return sample_json()


def test_labels_alone_that_are_better_lead(record):
    record["models"]["baseline"]["metrics"]["accuracy"] = 0.927
    record["gain"]["accuracy"] = {"value": -0.1104, "low": -0.13, "high": -0.091}
    assert verdict(typed(record)).startswith(
        "Distillation did not help: the same student on labels alone reaches 92.7 % accuracy on sst2 "
        "(11.0 points more [9.1, 13.0]). The 3-layer performer student keeps 97.5 % [95.9, 99.1]"
    )
    assert "labels alone keeps" not in verdict(typed(record))


def test_correlations_have_no_points(record):
    record["main_metric"] = "pearson"
    for model in record["models"].values():
        model["metrics"] = {"pearson": 0.8}
    record["retention"] = {"pearson": record["retention"]["accuracy"]}
    record["gain"] = {"pearson": {"value": -0.1, "low": -0.2, "high": -0.05}}
    assert "reaches 0.800 Pearson on sst2 (0.100 more [0.050, 0.200])." in verdict(typed(record))


@pytest.mark.parametrize("high", [-0.0004, 0.0, 0.01])
def test_a_gain_that_may_be_nothing_is_no_loss(record, high):
    record["gain"]["accuracy"] = {"value": -0.01, "low": -0.03, "high": high}
    assert "did not help" not in verdict(typed(record))
    assert "labels alone keeps" in verdict(typed(record))


def test_a_record_of_an_earlier_version_has_its_verdict(record):
    expected = verdict(typed(record))
    for key in ("gain", "never_answered", "alternatives", "median_length"):
        del record[key]
    assert verdict(typed(record)) == expected


def test_classes_without_an_answer_are_named(record):
    record["never_answered"] = {"teacher": ["bug"], "student": ["bug", "bill"], "baseline": ["bug"]}
    assert verdict_sentences(typed(record))[:2] == [
        "The student never answers classes bug, bill.",
        "The teacher never answers class bug.",
    ]
    record["never_answered"] = {"student": [f"c{index}" for index in range(8)]}
    assert verdict_sentences(typed(record))[0] == "The student never answers classes c0, c1, c2, c3, c4 and 3 more."


def point_at(record, index, length):
    return next(point for point in record["alternatives"][index]["speed"] if point["length"] == length)


def test_an_alternative_that_is_faster_and_better_is_named(record):
    record["alternatives"][1]["metrics"]["accuracy"] = 0.91
    point_at(record, 1, 24).update(over_student=3.2, over_student_low=3.0, over_student_high=3.4)
    sentence = (
        "The teacher in ONNX Runtime int8 is both faster than the student (3.20× [3.00, 3.40]) and better "
        "(91.0 % against 89.3 % accuracy) at 24 tokens, about your median."
    )
    assert verdict_sentences(typed(record))[0] == sentence
    point_at(record, 0, 24).update(over_student=1.5, over_student_low=1.4, over_student_high=1.6)
    assert verdict_sentences(typed(record))[0] == sentence  # the faster of the two
    record["alternatives"][1]["metrics"]["accuracy"] = record["models"]["student"]["metrics"]["accuracy"]
    assert "and as good (89.3 % against 89.3 % accuracy)" in verdict_sentences(typed(record))[0]


@pytest.mark.parametrize(
    ("metric", "student", "score", "how"),
    [
        ("accuracy", 0.89334, 0.89349, "as good"),
        ("accuracy", 0.89349, 0.89251, "as good"),
        ("accuracy", 0.89349, 0.8936, "better"),
        ("pearson", 0.8012, 0.8014, "as good"),
        ("pearson", 0.8014, 0.8006, "as good"),
        ("pearson", 0.8014, 0.8016, "better"),
    ],
)
def test_scores_compare_as_they_are_shown(record, metric, student, score, how):
    """Whoever reads the same digits twice is not told that one of them is better, or worse."""
    record["main_metric"] = metric
    for model in record["models"].values():
        model["metrics"] = {metric: student}
    record["retention"] = {metric: record["retention"]["accuracy"]}
    record["alternatives"][1]["metrics"] = {metric: score}
    point_at(record, 1, 24).update(over_student=3.2, over_student_low=3.0, over_student_high=3.4)
    assert f" and {how} (" in verdict_sentences(typed(record))[0]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.004, 1.02, "cannot be told from"),
        (1.006, 1.02, "It runs"),
        (0.97, 0.996, "cannot be told from"),
        (0.97, 0.994, "SLOWER"),
    ],
)
def test_speeds_compare_as_they_are_shown(record, low, high, words):
    for point in record["speed"]:
        point |= {"speedup": 1.0, "low": low, "high": high}
    assert words in verdict(typed(record))


@pytest.mark.parametrize(
    ("accuracy", "low", "length"),
    [(0.8924, 3.0, 24), (0.91, 1.004, 24), (0.91, None, 24), (0.91, 3.0, 128)],
    ids=["worse", "not surely faster", "not measured", "faster elsewhere"],
)
def test_other_alternatives_are_not(record, accuracy, low, length):
    for point in record["alternatives"][1]["speed"]:
        point |= {"over_student": 0.5, "over_student_low": 0.4, "over_student_high": 0.6}
    record["alternatives"][1]["metrics"]["accuracy"] = accuracy
    point_at(record, 1, length).update(over_student=3.2, over_student_low=low)
    assert "both faster" not in verdict(typed(record))


def test_gain_as_a_gate(record):
    assert parse_requirements("gain=0") == {"gain": 0.0}
    assert unmet_requirements(typed(record), {"gain": 0.0413}) == []
    assert unmet_requirements(typed(record), {"gain": 0.05}) == [
        "gain in accuracy over labels alone +6.2 [4.1, 8.3]: lower end below 0.05"
    ]
    record["gain"]["accuracy"]["low"] = -0.001
    assert len(unmet_requirements(typed(record), {"gain": 0.0})) == 1
    del record["gain"]
    assert unmet_requirements(typed(record), {"gain": 0.0}) == [
        "gain: no student trained on labels alone was compared"
    ]


@pytest.mark.parametrize(("correlation", "leads"), [(0.0, True), (-0.2, True), (0.5, False), (None, False)])
def test_a_teacher_that_has_learned_nothing_leads(record, correlation, leads):
    record["models"]["teacher"]["label_correlation"] = correlation
    assert verdict(typed(record)).startswith("The teacher has not learned sst2") == leads


@pytest.mark.parametrize(
    ("count", "leads"), [(1, "1 example is too few"), (99, "99 examples are too few"), (100, "The 3-layer")]
)
def test_too_few_examples_lead(record, count, leads):
    record["num_examples"] = count
    first, *others = verdict_sentences(typed(record))
    assert first.startswith(leads)
    if count < 100:
        assert first.endswith("measure on 100 or more, better 1,000, before you trust what follows.")
        assert others[0].startswith("The 3-layer")
