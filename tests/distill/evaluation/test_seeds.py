"""Retention over several seeds: intervals against scipy, hand cases and the slow bootstrap."""

import numpy as np
import pytest
from helpers.predictions import make_predictions
from scipy import stats

from distill.evaluation import significance


def make_seeds(num_seeds: int, num_examples: int = 200) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return labels and, per seed, a teacher of about 90 % and a student of 70, 78, 86 % accuracy."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, num_examples)
    rates = [0.9] * num_seeds, [0.7 + 0.08 * seed for seed in range(num_seeds)]
    teachers, students = (
        [np.where(generator.random(num_examples) < rate, labels, 1 - labels) for rate in part] for part in rates
    )
    return labels, teachers, students


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_one_seed_is_the_plain_bootstrap(metric):
    labels, teacher, student = make_predictions(metric, 120)
    plain = significance.retention(metric, labels, teacher, student, resamples=500, seed=3)
    several = significance.retention_over_seeds(metric, labels, [teacher], [student], resamples=500, seed=3)
    assert several == {"ratio_of_averages": plain, "mean_of_ratios": plain}


def test_one_seed_agrees_with_scipy():
    labels, teacher, student = make_predictions("accuracy", 300)
    ours = significance.retention_over_seeds("accuracy", labels, [teacher], [student], seed=1)["mean_of_ratios"]
    theirs = stats.bootstrap(
        ((labels == teacher).astype(float), (labels == student).astype(float)),
        lambda right, also_right, axis: also_right.mean(axis) / right.mean(axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.05 * width
    assert abs(ours.high - theirs.high) < 0.05 * width


def test_hand_case_of_two_seeds_and_two_examples(monkeypatch):
    # The teacher is always right. Seed A's student too, seed B's on the first example only. Drawn seeds: AA, AB or BB
    # (1/4, 1/2, 1/4); drawn examples: 11, 12 or 22 (1/4, 1/2, 1/4), on which B scores 1, 1/2 and 0.
    seen = {}

    def keep(ratios, teacher):
        seen.setdefault("ratios", ratios)
        return {}

    monkeypatch.setattr(significance, "_share", keep)
    labels = np.array([0, 1])
    significance.retention_over_seeds(
        "accuracy", labels, [labels, labels], [labels, np.array([0, 0])], resamples=40_000, seed=0
    )
    data, *resampled = seen["ratios"]
    assert data == 0.75
    chances = {0.0: 1 / 16, 0.5: 1 / 8 + 1 / 8, 0.75: 1 / 4}  # BB on 22; BB on 12 and AB on 22; AB on 12
    chances[1.0] = 1 - sum(chances.values())
    for value, chance in chances.items():
        assert (np.isclose(resampled, value)).mean() == pytest.approx(chance, abs=0.01)


def test_several_seeds_equal_the_slow_bootstrap():
    labels, teachers, students = make_seeds(3)
    generator = np.random.default_rng(7)
    right = [np.array([part == labels for part in parts], float) for parts in (teachers, students)]
    slow = []
    for _ in range(4000):
        seeds, examples = generator.integers(0, 3, 3), generator.integers(0, len(labels), len(labels))
        teacher, student = (part[seeds][:, examples].mean(1) for part in right)
        slow.append((student.mean() / teacher.mean(), (student / teacher).mean()))
    ours = significance.retention_over_seeds("accuracy", labels, teachers, students, seed=0)
    for name, column in zip(("ratio_of_averages", "mean_of_ratios"), np.array(slow).T, strict=True):
        low, high = np.percentile(column, [2.5, 97.5])
        assert ours[name].low == pytest.approx(low, abs=0.05 * (high - low))
        assert ours[name].high == pytest.approx(high, abs=0.05 * (high - low))


def test_seeds_that_differ_widen_the_interval():
    labels, teachers, students = make_seeds(3)
    several = significance.retention_over_seeds("accuracy", labels, teachers, students)["mean_of_ratios"]
    alone = significance.retention("accuracy", labels, teachers[1], students[1])
    assert several.high - several.low > 1.2 * (alone.high - alone.low)


def test_both_definitions_of_retention():
    labels = np.ones(4, dtype=int)
    half, quarter, whole = (np.array(row) for row in ([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]))
    both = significance.retention_over_seeds("accuracy", labels, [half, whole], [quarter, whole], resamples=50)
    assert both["ratio_of_averages"].value == pytest.approx(1.25 / 1.5)
    assert both["mean_of_ratios"].value == pytest.approx(0.75)
    nothing = np.zeros(4, dtype=int)
    both = significance.retention_over_seeds("accuracy", labels, [nothing, whole], [whole, whole], resamples=50)
    assert both["mean_of_ratios"].value is None
    assert "not above 0" in both["mean_of_ratios"].reason
