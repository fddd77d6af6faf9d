"""Similarity: what each differing part of a sentence costs."""

from itertools import pairwise

import numpy as np
import pytest

from distill.data.synthetic_glue.similarity import cost, write_stsb


def test_costs_of_a_differing_part():
    assert cost("action", (0, 1), (0, 1)) == 0.0
    assert cost("action", (0, 1), (0, 0)) == pytest.approx(0.9)
    assert cost("action", (0, 1), (1, 1)) == pytest.approx(1.8)
    assert cost("place", None, (1, 1)) == cost("place", (1, 1), None) == pytest.approx(0.25)


def test_grades_fall_with_every_part_that_is_redrawn(drawn):
    means = [np.mean([grade for _, grade in drawn(write_stsb, parts, 300)]) for parts in range(6)]
    assert means[0] > 4.8
    assert all(left > right + 0.2 for left, right in pairwise(means))
