"""Which keys may change between a run and its continuation."""

from dataclasses import fields, replace

import pytest

from distill.config.data_schema import DataConfig
from distill.config.resume import BY_CONTENT, OF_ONE_PHASE, WITHOUT_EFFECT, moved_inputs, refused_keys
from distill.config.schema import BaselineConfig, CacheConfig, ComparisonConfig, Config, TrainingConfig

CONFIG = Config("sst2", run_dir="a")
FREE = replace(
    CONFIG,
    run_dir="b",
    training=TrainingConfig(log_every=7, checkpoint_every=8),
    cache=CacheConfig("elsewhere", 1.0),
    teacher=replace(CONFIG.teacher, margin_over_majority=0.0),
)


def test_what_changes_no_number_may_change_at_any_time():
    assert refused_keys(CONFIG, FREE, OF_ONE_PHASE) == []


def test_what_matters_to_one_phase_may_change_until_it_begins():
    wanted = replace(CONFIG, baseline=BaselineConfig(epochs=2), comparison=ComparisonConfig(resamples=5))
    assert refused_keys(CONFIG, wanted, []) == []
    assert refused_keys(CONFIG, wanted, ["baseline"]) == ["baseline.epochs"]
    assert refused_keys(CONFIG, wanted, ["comparison"]) == ["comparison.resamples"]
    assert refused_keys(CONFIG, wanted, ["baseline", "comparison"]) == ["baseline.epochs", "comparison.resamples"]


@pytest.mark.parametrize("name", [entry.name for entry in fields(TrainingConfig)])
def test_of_training_only_what_is_written_down_of_it_may_change(name):
    other = {"mixed_precision": "bf16"}.get(name, 3)
    wanted = replace(CONFIG, training=replace(CONFIG.training, **{name: other}))
    free = name in ("log_every", "checkpoint_every")
    assert refused_keys(CONFIG, wanted, []) == ([] if free else [f"training.{name}"])


def test_inputs_may_be_moved_and_are_named():
    wanted = replace(
        CONFIG,
        data=DataConfig(dir="elsewhere", seed=3, unlabelled="texts.txt"),
        teacher=replace(CONFIG.teacher, checkpoint="there"),
        baseline=BaselineConfig(checkpoint="encoder"),
    )
    assert refused_keys(CONFIG, wanted, OF_ONE_PHASE) == ["data.seed"]
    assert moved_inputs(CONFIG, wanted) == ["baseline.checkpoint", "data.dir", "data.unlabelled", "teacher.checkpoint"]
    assert moved_inputs(CONFIG, FREE) == []


def test_every_key_of_the_lists_exists():
    for key in (*WITHOUT_EFFECT, *BY_CONTENT, *OF_ONE_PHASE):
        value = CONFIG
        for name in key.split("."):
            value = getattr(value, name)
