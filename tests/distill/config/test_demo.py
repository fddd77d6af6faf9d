"""The demo's file is small, needs no network, suits any device and compares fairly, whatever its numbers are."""

from pathlib import Path

import pytest
import yaml

from distill.config.parsing import parse_config
from distill.config.schema import LAYER_LOSSES, Config
from distill.data.synthetic_glue import NUM_TRAIN
from students import STUDENTS

DEMO = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"
MOST_LAYER_PASSES = 400_000
"""Examples times layers over all training: about 150 s of one core, at 0.4 ms for an example in a layer of 128."""


@pytest.fixture(scope="module")
def demo() -> Config:
    return parse_config(["--config", str(DEMO)], STUDENTS)


def test_needs_no_network(demo):
    assert demo.data.dir == "embedded"
    assert demo.teacher.checkpoint is None
    assert demo.baseline.checkpoint is None


def test_leaves_the_precision_to_the_device():
    assert "mixed_precision" not in DEMO.read_text()


def test_student_is_linear_and_shallower(demo):
    assert demo.student.attention == "performer"
    assert demo.student.num_layers < demo.teacher.scratch.num_layers


def test_stages_match_layers_and_then_answers(demo):
    matched, answers = (set(stage.losses) for stage in demo.stages)
    assert {"attention_output", "hidden_states"} <= matched <= set(LAYER_LOSSES)
    assert "logits" in answers


def test_baseline_is_trained_as_long_and_as_fast_as_the_stages(demo):
    assert demo.baseline.epochs is None
    assert {stage.learning_rate for stage in demo.stages} == {demo.baseline.learning_rate}
    assert {stage.batch_size for stage in demo.stages} == {demo.baseline.batch_size}


def test_no_seed_is_favoured(demo):
    """A demo that holds for one seed of data alone would have to name it."""
    assert "seed" not in yaml.safe_load(DEMO.read_text())["data"]


def test_training_is_a_matter_of_minutes(demo):
    teacher = demo.teacher.epochs * demo.teacher.scratch.num_layers
    stages = sum(stage.epochs for stage in demo.stages)
    student = 2 * stages * demo.student.num_layers  # its stages, and as many epochs of the baseline
    examples = min(demo.data.max_train_examples or NUM_TRAIN, NUM_TRAIN)
    assert examples * (teacher + student) <= MOST_LAYER_PASSES
