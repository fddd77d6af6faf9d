"""What the tests of the teacher's outputs share."""

import pytest

from teachers.loading import freeze


@pytest.fixture
def teacher(make_bert):
    return freeze(make_bert(num_layers=3))


@pytest.fixture
def examples(make_examples):
    return make_examples(30)
