"""How long the baseline of a run is trained."""

from types import SimpleNamespace

import pytest

from distill.config.schema import Config, StageConfig
from pipelines.run.baseline import baseline_stage


@pytest.mark.parametrize(("epochs", "expected"), [([0.5, 0.25], 1), ([0.1], 1), ([1, 1.6], 3), ([4, 2], 6)])
def test_the_baseline_sees_about_as_many_examples_as_all_stages_and_at_least_all_once(epochs, expected):
    stages = tuple(StageConfig(f"stage{i}", each, 1e-3, {"logits": 1.0}) for i, each in enumerate(epochs))
    lesson = SimpleNamespace(stages=stages, other=None, train=range(10))
    assert baseline_stage(Config("sst2", stages), lesson).epochs == expected
