"""Intervals against scipy, hand cases and their own promise of coverage."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from distill import statistics

METRICS = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": sklearn_metrics.f1_score,
    "macro_f1": lambda labels, predicted: sklearn_metrics.f1_score(labels, predicted, average="macro"),
    "matthews_correlation": sklearn_metrics.matthews_corrcoef,
    "pearson": lambda labels, scores: stats.pearsonr(labels, scores).statistic,
    "spearmanr": lambda labels, scores: stats.spearmanr(labels, scores).statistic,
}


def make_predictions(metric: str, num_examples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and the predictions of a good and a worse model; scores carry ties."""
    generator = np.random.default_rng(seed)
    if metric in ("pearson", "spearmanr"):
        labels = generator.integers(0, 11, num_examples) / 2
        return (
            labels,
            labels + generator.normal(size=num_examples).round(1),
            labels + generator.normal(scale=2, size=num_examples),
        )
    num_classes = 4 if metric == "macro_f1" else 2
    labels = generator.integers(0, num_classes, num_examples)
    noisy = [
        np.where(generator.random(num_examples) < rate, labels, generator.integers(0, num_classes, num_examples))
        for rate in (0.8, 0.6)
    ]
    return labels, noisy[0], noisy[1]


@pytest.mark.parametrize("metric", METRICS)
def test_value_is_the_metric_of_the_data(metric):
    labels, teacher, student = make_predictions(metric, 97)
    row = statistics.bootstrap_metric(metric, labels, (teacher, student), resamples=3, seed=0)[0]
    np.testing.assert_allclose(row, [METRICS[metric](labels, teacher), METRICS[metric](labels, student)], atol=1e-12)


@pytest.mark.parametrize("metric", ["pearson", "spearmanr"])
def test_weighted_correlations_equal_repeating_the_examples(metric):
    labels, scores, _ = make_predictions(metric, 60)
    counts = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=20)
    ours = statistics._correlation(metric, counts.astype(float), labels, scores)
    repeated = [METRICS[metric](np.repeat(labels, row), np.repeat(scores, row)) for row in counts]
    np.testing.assert_allclose(ours, repeated, atol=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "matthews_correlation", "pearson", "spearmanr"])
def test_interval_agrees_with_scipy(metric):
    labels, teacher, student = make_predictions(metric, 300)
    ours = statistics.retention(metric, labels, teacher, student, resamples=4000, seed=3)
    quick = {  # scikit-learn's own take seconds for this many calls; MCC of two classes is their correlation
        "accuracy": lambda y, predicted: (y == predicted).mean(),
        "matthews_correlation": lambda y, predicted: np.corrcoef(y, predicted)[0, 1],
    }
    score = quick.get(metric, METRICS[metric])
    theirs = stats.bootstrap(
        (labels, teacher, student),
        lambda y, t, s: score(y, s) / score(y, t),
        paired=True,
        vectorized=False,
        n_resamples=600,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours["low"] - theirs.low) < 0.2 * width
    assert abs(ours["high"] - theirs.high) < 0.2 * width


def test_hand_case_of_two_examples():
    # Teacher right on both, student on the first: retention is 1, 1/2 or 0 with chances 1/4, 1/2, 1/4.
    labels, teacher, student = np.array([0, 1]), np.array([0, 1]), np.array([0, 0])
    scores = statistics.bootstrap_metric("accuracy", labels, (teacher, student), resamples=20_000, seed=0)[1:]
    shares = [(scores[:, 1] == value).mean() for value in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.015)
    assert statistics.retention("accuracy", labels, teacher, student) == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_student_equal_to_teacher_keeps_exactly_everything():
    labels, teacher, _ = make_predictions("accuracy", 50)
    interval = statistics.retention("accuracy", labels, teacher, teacher)
    assert interval == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_resampling_is_seeded_and_paired_across_metric_forms():
    labels, teacher, student = make_predictions("pearson", 80)
    first = statistics.bootstrap_metric("pearson", labels, (teacher, student), resamples=50, seed=5)
    again = statistics.bootstrap_metric("pearson", labels, (teacher, student), resamples=50, seed=5)
    other = statistics.bootstrap_metric("pearson", labels, (teacher, student), resamples=50, seed=6)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[1:], other[1:])
    same_model = statistics.bootstrap_metric("pearson", labels, (teacher, teacher), resamples=50, seed=5)
    np.testing.assert_array_equal(same_model[:, 0], same_model[:, 1])


def test_a_metric_may_be_any_function():
    labels, teacher, student = make_predictions("accuracy", 200)
    slow = statistics.retention(METRICS["accuracy"], labels, teacher, student, resamples=500, seed=0)
    fast = statistics.retention("accuracy", labels, teacher, student, resamples=20_000, seed=0)
    assert slow["value"] == pytest.approx(fast["value"])
    assert slow["low"] == pytest.approx(fast["low"], abs=0.02)
    assert slow["high"] == pytest.approx(fast["high"], abs=0.02)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):  # true accuracies .9 and .75, errors correlated through the difficulty
        difficulty = generator.random(250)
        labels = np.ones(250, dtype=int)
        teacher, student = (difficulty < 0.9).astype(int), (difficulty < 0.75).astype(int)
        interval = statistics.retention("accuracy", labels, teacher, student, resamples=500, seed=trial)
        covered += interval["low"] <= 0.75 / 0.9 <= interval["high"]
    assert 0.90 <= covered / 300 <= 0.985


def test_a_teacher_without_a_score_has_no_retention():
    labels = np.array([0, 1, 0, 1])
    constant = np.zeros(4, dtype=int)
    interval = statistics.retention("matthews_correlation", labels, constant, labels)
    assert (interval["value"], interval["low"], interval["high"]) == (None, None, None)
    assert "not above 0" in interval["reason"]


def test_an_unsure_teacher_has_a_value_but_no_interval():
    labels = np.array([0, 1] * 5)
    teacher = np.array([0, 1, 0, 1, 0, 1, 1, 0, 1, 0])
    interval = statistics.retention("matthews_correlation", labels, teacher, labels)
    assert interval["value"] == pytest.approx(5.0)
    assert interval["low"] is None
    assert "resamples" in interval["reason"]


def test_mcnemar_golden():
    labels = np.ones(12, dtype=int)
    first = np.array([1] * 9 + [0] * 3)
    second = np.array([1] * 2 + [0] * 7 + [1] + [0] * 2)
    # 7 only the first, 1 only the second: p = 2 * (C(8,0) + C(8,1)) / 2^8
    assert statistics.mcnemar(labels, first, second) == {
        "only_first": 7,
        "only_second": 1,
        "p": pytest.approx(18 / 256),
    }
    assert statistics.mcnemar(labels, first, first)["p"] == 1.0


def test_agreement_of_classes_and_of_scores():
    assert statistics.agreement(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1])) == 0.75
    assert statistics.agreement(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])) == pytest.approx(1.0)


def test_mean_kl_golden():
    teacher, student = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    expected = (0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert statistics.mean_kl(teacher + 7.0, student) == pytest.approx(expected)
    assert statistics.mean_kl(teacher, teacher) == 0.0


def test_expected_calibration_error_golden():
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])
    # .9, .9 in one bin: |1/2 - .9| * 2/4; .6 -> (8/15, 9/15], .65 -> (9/15, 10/15]: .4 / 4 and .35 / 4
    assert statistics.expected_calibration_error(logits, labels) == pytest.approx(0.2 + 0.1 + 0.0875)


def test_both_definitions_of_retention():
    both = statistics.retention_over_runs([0.5, 1.0], [0.25, 1.0])
    assert both == {"ratio_of_averages": pytest.approx(1.25 / 1.5), "mean_of_ratios": pytest.approx(0.75)}
    assert statistics.retention_over_runs([0.0, 1.0], [0.5, 0.5])["mean_of_ratios"] is None
