"""The disk that a run is said to need for the outputs of its teachers is what they take."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers.default_stages import DEPTH, DEPTH_LOGITS, LOGITS, MATCH, TRANSFER

from distill.config.schema import AugmentationConfig, CacheConfig, Config, TrainingConfig
from distill.objectives.capture_plan import plan_stage
from pipelines.run.context import DistillationSetup
from pipelines.run.disk import most_checkpoints, outputs_on_disk
from students import student_from_teacher
from teachers.loading import freeze
from teachers.output_cache import build_cache, teacher_fingerprint
from teachers.output_format import outputs_of
from teachers.output_plan import plan_readings

STAGES = (DEPTH, DEPTH_LOGITS, TRANSFER, MATCH, LOGITS)
ROW = 32 + 8


@pytest.fixture
def run(make_bert, make_examples):
    """A run on 40 texts, of a teacher of six layers and a student of three."""
    teacher = freeze(make_bert(num_layers=6))
    student, _ = student_from_teacher(teacher, layer_map=[0, 2, 4], attention="performer")
    train = make_examples(40)
    source = SimpleNamespace(model=teacher, is_trained=True)
    setup = DistillationSetup(source, False, train, train, {}, layer_map=[0, 2, 4], stages=STAGES)
    accelerator = SimpleNamespace(mixed_precision="no")
    context = SimpleNamespace(config=Config("sst2"), run=SimpleNamespace(accelerator=accelerator), unlabelled=None)
    return context, setup, student


def test_what_no_later_stage_reads_is_not_counted_twice(run):
    """At its most the folder holds the softmax student's outputs: five whole ones, and two first tokens."""
    context, setup, student = run
    tokens, texts = len(setup.train.token_ids), len(setup.train)
    logits = 2 * 4 * texts * 2  # of the teacher and of its student
    assert outputs_on_disk(*run) == (5 * tokens + 2 * texts) * ROW + logits
    assert (
        outputs_on_disk(context, replace(setup, stages=STAGES[:2]), student)
        == (4 * tokens + 2 * texts) * ROW + logits // 2
    )


def test_a_shared_cache_keeps_everything_up_to_its_limit(run, tmp_path):
    context, setup, student = run
    tokens, texts = len(setup.train.token_ids), len(setup.train)
    logits = 2 * 4 * texts * 2
    everything = (9 * tokens + 4 * texts) * ROW + logits
    context.config = replace(context.config, cache=CacheConfig(dir=str(tmp_path)))
    assert outputs_on_disk(context, setup, student) == everything
    depth = frozenset(x for each in outputs_of(plan_stage(STAGES[0], [0, 2, 4], 6)).values() for x in each)
    folder = tmp_path / teacher_fingerprint(setup.teacher, setup.train, None)
    build_cache(setup.teacher, setup.train, depth, folder)
    taken = sum(path.stat().st_size - 192 for path in folder.glob("*-layer-*.npy"))
    assert outputs_on_disk(context, setup, student) == everything - taken
    context.config = replace(context.config, cache=CacheConfig(str(tmp_path / "new"), 6 * tokens * ROW / 1e9))
    assert outputs_on_disk(context, setup, student) == pytest.approx(6 * tokens * ROW + logits, abs=1)


def test_what_is_computed_live_takes_nothing(run):
    context, setup, student = run
    assert outputs_on_disk(context, replace(setup, stages=STAGES[:1]), student) < 4 * 40 * 2 + 1
    context.config = replace(context.config, cache=CacheConfig(max_gigabytes=1e-9))
    assert outputs_on_disk(context, setup, student) == 2 * 4 * 40 * 2


def test_copies_are_counted(run):
    context, setup, student = run
    before = outputs_on_disk(context, setup, student)
    context.config = replace(context.config, augmentation=AugmentationConfig(copies=2))
    assert outputs_on_disk(context, setup, student) == 3 * before
    assert len(plan_readings(STAGES, [0, 2, 4], 6)) == len(STAGES)


@pytest.mark.parametrize(
    ("rows", "epochs", "expected"),
    # 10 texts a step, a checkpoint every 20 steps and at the end of an epoch; three at a time at most
    [(100, 0.5, 1), (100, 1, 1), (199, 1, 2), (100, 2, 3), (10_000, 0.1, 3), (10_000, 5, 3)],
)
def test_a_short_phase_has_no_more_checkpoints_than_it_writes(rows, epochs, expected):
    stage = replace(DEPTH, epochs=epochs, batch_size=10)
    assert most_checkpoints(stage, rows, Config("sst2", training=TrainingConfig(checkpoint_every=20))) == expected
