"""Intervals against scipy, hand cases and their own promise of coverage."""

import numpy as np
import pytest
from helpers.predictions import make_predictions
from scipy import stats
from sklearn import metrics as sklearn_metrics

from distill.benchmark.points import Interval
from distill.evaluation import bootstrap, significance

METRICS = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": sklearn_metrics.f1_score,
    "macro_f1": lambda labels, predicted: sklearn_metrics.f1_score(labels, predicted, average="macro"),
    "matthews_correlation": sklearn_metrics.matthews_corrcoef,
    "pearson": lambda labels, scores: stats.pearsonr(labels, scores).statistic,
    "spearmanr": lambda labels, scores: stats.spearmanr(labels, scores).statistic,
}


@pytest.mark.parametrize("metric", METRICS)
def test_value_is_the_metric_of_the_data(metric):
    labels, teacher, student = make_predictions(metric, 97)
    row = bootstrap.bootstrap_metric(metric, labels, (teacher, student), resamples=3, seed=0)[0]
    np.testing.assert_allclose(row, [METRICS[metric](labels, teacher), METRICS[metric](labels, student)], atol=1e-12)


@pytest.mark.parametrize("metric", ["pearson", "spearmanr"])
def test_weighted_correlations_equal_repeating_the_examples(metric):
    labels, scores, _ = make_predictions(metric, 60)
    counts = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=20)
    ours = bootstrap.correlation(metric, counts.astype(float), labels, scores)
    repeated = [METRICS[metric](np.repeat(labels, row), np.repeat(scores, row)) for row in counts]
    np.testing.assert_allclose(ours, repeated, atol=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "matthews_correlation", "pearson", "spearmanr"])
def test_interval_agrees_with_scipy(metric):
    labels, teacher, student = make_predictions(metric, 300)
    ours = significance.retention(metric, labels, teacher, student, resamples=4000, seed=3)
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
    assert abs(ours.low - theirs.low) < 0.2 * width
    assert abs(ours.high - theirs.high) < 0.2 * width


def test_hand_case_of_two_examples():
    # Teacher right on both, student on the first: retention is 1, 1/2 or 0 with chances 1/4, 1/2, 1/4.
    labels, teacher, student = np.array([0, 1]), np.array([0, 1]), np.array([0, 0])
    scores = bootstrap.bootstrap_metric("accuracy", labels, (teacher, student), resamples=20_000, seed=0)[1:]
    shares = [(scores[:, 1] == value).mean() for value in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.015)
    assert significance.retention("accuracy", labels, teacher, student) == Interval(0.5, 0.0, 1.0)


def test_student_equal_to_teacher_keeps_exactly_everything():
    labels, teacher, _ = make_predictions("accuracy", 50)
    interval = significance.retention("accuracy", labels, teacher, teacher)
    assert interval == Interval(value=1.0, low=1.0, high=1.0)


def test_resampling_is_seeded_and_paired_across_metric_forms():
    labels, teacher, student = make_predictions("pearson", 80)
    first = bootstrap.bootstrap_metric("pearson", labels, (teacher, student), resamples=50, seed=5)
    again = bootstrap.bootstrap_metric("pearson", labels, (teacher, student), resamples=50, seed=5)
    other = bootstrap.bootstrap_metric("pearson", labels, (teacher, student), resamples=50, seed=6)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[1:], other[1:])
    same_model = bootstrap.bootstrap_metric("pearson", labels, (teacher, teacher), resamples=50, seed=5)
    np.testing.assert_array_equal(same_model[:, 0], same_model[:, 1])


@pytest.mark.parametrize("metric", ["accuracy", "spearmanr"])
@pytest.mark.parametrize("elements", [1, 240, 300])
def test_the_size_of_a_chunk_changes_nothing(metric, elements, monkeypatch):
    """Chunks of one resample, of two of 120 examples and of two with a part left; of cells of many, the last less."""
    labels, teacher, student = make_predictions(metric, 120)
    whole = bootstrap.bootstrap_metric(metric, labels, (teacher, student), resamples=51, seed=5)
    assert whole.shape == (52, 2)
    monkeypatch.setattr(bootstrap, "CHUNK_ELEMENTS", elements)
    parts = bootstrap.bootstrap_metric(metric, labels, (teacher, student), resamples=51, seed=5)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_every_resample_draws_as_many_examples_as_there_are(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK_ELEMENTS", 21)  # three resamples at a time
    for draw, given in ((bootstrap._resample_counts, 7), (bootstrap._cell_counts, np.array([1, 2, 4, 0, 0, 0, 0]))):
        chunks = list(draw(given, 10, 0))
        assert [len(chunk) for chunk in chunks] == [3, 3, 3, 1]
        assert all((chunk.sum(1) == 7).all() for chunk in chunks)
        drawn = np.concatenate(chunks)
        assert len(np.unique(drawn, axis=0)) > 5


def test_every_example_is_drawn_as_often_as_the_others():
    counts = np.concatenate(list(bootstrap._resample_counts(5, 4000, 0)))
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(0), 1 - 1 / 5, atol=0.08)  # binomial, 5 draws of chance 1/5


def test_a_metric_may_be_any_function():
    labels, teacher, student = make_predictions("accuracy", 200)
    slow = significance.retention(METRICS["accuracy"], labels, teacher, student, resamples=500, seed=0)
    fast = significance.retention("accuracy", labels, teacher, student, resamples=20_000, seed=0)
    assert slow.value == pytest.approx(fast.value)
    assert slow.low == pytest.approx(fast.low, abs=0.02)
    assert slow.high == pytest.approx(fast.high, abs=0.02)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):  # true accuracies .9 and .75, errors correlated through the difficulty
        difficulty = generator.random(250)
        labels = np.ones(250, dtype=int)
        teacher, student = (difficulty < 0.9).astype(int), (difficulty < 0.75).astype(int)
        interval = significance.retention("accuracy", labels, teacher, student, resamples=500, seed=trial)
        covered += interval.low <= 0.75 / 0.9 <= interval.high
    assert 0.90 <= covered / 300 <= 0.985


def test_a_teacher_without_a_score_has_no_retention():
    labels = np.array([0, 1, 0, 1])
    constant = np.zeros(4, dtype=int)
    interval = significance.retention("matthews_correlation", labels, constant, labels)
    assert (interval.value, interval.low, interval.high) == (None, None, None)
    assert "not above 0" in interval.reason


def test_an_unsure_teacher_has_a_value_but_no_interval():
    labels = np.array([0, 1] * 5)
    teacher = np.array([0, 1, 0, 1, 0, 1, 1, 0, 1, 0])
    interval = significance.retention("matthews_correlation", labels, teacher, labels)
    assert interval.value == pytest.approx(5.0)
    assert interval.low is None
    assert "resamples" in interval.reason


def test_mcnemar_golden():
    labels = np.ones(12, dtype=int)
    first = np.array([1] * 9 + [0] * 3)
    second = np.array([1] * 2 + [0] * 7 + [1] + [0] * 2)
    # 7 only the first, 1 only the second: p = 2 * (C(8,0) + C(8,1)) / 2^8
    assert significance.mcnemar(labels, first, second) == {
        "only_first": 7,
        "only_second": 1,
        "p": pytest.approx(18 / 256),
    }
    assert significance.mcnemar(labels, first, first)["p"] == 1.0


def test_agreement_of_classes_and_of_scores():
    assert significance.agreement(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1])) == 0.75
    assert significance.agreement(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])) == pytest.approx(1.0)


def test_mean_kl_golden():
    teacher, student = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    expected = (0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert significance.mean_kl(teacher + 7.0, student) == pytest.approx(expected)
    assert significance.mean_kl(teacher, teacher) == 0.0


def test_expected_calibration_error_golden():
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])
    # .9, .9 in one bin: |1/2 - .9| * 2/4; .6 -> (8/15, 9/15], .65 -> (9/15, 10/15]: .4 / 4 and .35 / 4
    assert significance.expected_calibration_error(logits, labels) == pytest.approx(0.2 + 0.1 + 0.0875)


# ---------------------------------------------------------------- Williams


def test_williams_published_examples():
    # Steiger (1980), case A, and the example that the R package psych documents to seven digits (?psych::r.test).
    assert significance.williams_from_correlations(103, 0.4, 0.5, 0.1).t == pytest.approx(-0.89, abs=0.005)
    r12, r13, r23 = 0.693458895410494, 0.695966022434845, 0.988475791500198
    assert significance.williams_from_correlations(5105, r12, r13, r23).p == pytest.approx(0.1000759, abs=5e-8)


def test_williams_keeps_its_promise_where_both_are_equally_good():
    generator = np.random.default_rng(0)
    rejected = 0
    for _ in range(1000):
        labels, common, first, second = generator.normal(size=(4, 60))
        test = significance.williams(labels, labels + common + first, labels + common + second)
        rejected += test.p < 0.05
    assert 0.03 < rejected / 1000 < 0.07


def test_williams_sees_the_better_score_and_has_no_opinion_on_equal_ones():
    labels, teacher, student = make_predictions("pearson", 200)
    test = significance.williams(labels, teacher, student)
    assert test.t > 3
    assert test.p < 0.01
    assert significance.williams(labels, student, teacher).t == pytest.approx(-test.t)
    assert significance.williams(labels, teacher, 2 * teacher + 1).p == 1.0
    assert significance.williams(labels, teacher, np.ones(200)).p is None
