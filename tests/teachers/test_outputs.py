"""The teacher's outputs from disk are those of the teacher, and nothing half-written is taken for them."""

import errno
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.closeness import assert_close

from distill.config.schema import CacheConfig, StageConfig
from distill.data.batching import collate
from distill.objectives.capture_plan import CapturePlan, plan_stage
from distill.utils.errors import UserError
from teachers import output_cache
from teachers.loading import freeze
from teachers.output_cache import build_cache, bytes_needed, disk_needed, stage_targets, teacher_fingerprint
from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs, array_path

STAGE = StageConfig(
    "one", 1, 0.1, {"attention_output": 1.0, "hidden_states": 1.0, "attention_map": 1.0, "logits": 1.0}
)
PLAN = plan_stage(STAGE, [0, 2], 3)


@pytest.fixture
def teacher(make_bert):
    return freeze(make_bert(num_layers=3))


@pytest.fixture
def examples(make_examples):
    return make_examples(30)


def batch_of(examples, indices):
    return collate(examples, indices)[0]


def test_from_disk_as_live_within_half_precision(teacher, examples, tmp_path):
    build_cache(teacher, examples, PLAN.teacher, tmp_path)
    cached = CachedTeacherOutputs(tmp_path, PLAN, examples, 2)
    indices = np.array([17, 3, 29, 4, 0])
    inputs = batch_of(examples, indices)
    got, want = cached.batch(indices, inputs), OnlineTeacherOutputs(teacher, PLAN).batch(indices, inputs)
    assert set(got) == set(want) == {"attention_output", "hidden_states", "query", "key", "logits"}
    assert_close(got["logits"], want["logits"])  # kept in full precision
    real = inputs["attention_mask"].bool()
    for kind, layers in PLAN.teacher.items():
        assert len(got[kind]) == len(layers)
        for one, other in zip(got[kind], want[kind], strict=True):
            assert one.dtype == torch.float32
            assert one.shape == other.shape
            assert torch.allclose(one[real], other[real], rtol=2e-3, atol=2e-3)
            assert one[~real].abs().sum() == 0
    assert cached.num_heads == OnlineTeacherOutputs(teacher, PLAN).num_heads == 2


def test_room_on_disk_is_what_was_announced(teacher, examples, tmp_path):
    build_cache(teacher, examples, PLAN.teacher, tmp_path)
    arrays = [path for path in tmp_path.glob("*.npy") if path.name != "logits.npy"]
    assert len(arrays) == 8
    header = 128
    assert sum(path.stat().st_size - header for path in arrays) == bytes_needed(PLAN, examples, 32)


def test_the_disk_that_stages_will_take_counts_what_they_share_once_and_what_is_there_not_at_all(
    teacher, examples, tmp_path
):
    one = bytes_needed(PLAN, examples, 32) // 8
    more = CapturePlan(teacher={"hidden_states": PLAN.teacher["hidden_states"][:1], "attention_output": [9]})
    plans = [PLAN, more]
    assert disk_needed(teacher, plans, examples, 1.0, None) == 9 * one
    assert disk_needed(teacher, plans, examples, 2.5e-9 * one, None) == 2 * one  # of the larger plan nothing is kept
    build_cache(teacher, examples, PLAN.teacher, tmp_path / teacher_fingerprint(teacher, examples, None))
    assert disk_needed(teacher, plans, examples, 1.0, tmp_path) == one
    assert disk_needed(teacher, plans, examples, 1.0, tmp_path, torch.bfloat16) == 9 * one
    assert disk_needed(teacher, plans, examples, 1.0, tmp_path / "nowhere") == 9 * one


def test_other_weights_tokens_or_precision_have_another_folder(teacher, examples, make_bert, make_examples):
    name = teacher_fingerprint(teacher, examples, None)
    assert name == teacher_fingerprint(freeze(make_bert(num_layers=3)), make_examples(30), None)
    names = {
        name,
        teacher_fingerprint(teacher, examples, torch.bfloat16),
        teacher_fingerprint(teacher, make_examples(29), None),
    }
    types = replace(examples, token_type_ids=1 - examples.token_type_ids)
    names.add(teacher_fingerprint(teacher, types, None))
    shifted = replace(examples, offsets=np.concatenate([[0, examples.offsets[1] - 1], examples.offsets[2:]]))
    names.add(teacher_fingerprint(teacher, shifted, None))
    with torch.no_grad():
        teacher.bert.encoder.layer[1].output.LayerNorm.bias[0] += 1e-6
    names.add(teacher_fingerprint(teacher, examples, None))
    assert len(names) == 6


def test_the_labels_are_not_part_of_the_teachers_outputs(teacher, examples):
    other = replace(examples, labels=1 - examples.labels)
    assert teacher_fingerprint(teacher, examples, None) == teacher_fingerprint(teacher, other, None)


def count_passes(monkeypatch) -> list[int]:
    """Return a list that grows by one with every batch that goes through the teacher."""
    batches: list[int] = []
    original = OnlineTeacherOutputs.batch
    monkeypatch.setattr(
        OnlineTeacherOutputs,
        "batch",
        lambda self, indices, inputs: (batches.append(len(indices)), original(self, indices, inputs))[1],
    )
    return batches


def test_everything_is_computed_once(teacher, examples, tmp_path, monkeypatch):
    batches = count_passes(monkeypatch)
    seconds = build_cache(teacher, examples, PLAN.teacher, tmp_path)
    assert sum(batches) == 30
    assert build_cache(teacher, examples, PLAN.teacher, tmp_path) == seconds
    assert build_cache(teacher, examples, {}, tmp_path) == seconds  # a later stage that reads the logits alone
    assert sum(batches) == 30
    build_cache(teacher, examples, {"hidden_states": [0, 2]}, tmp_path)
    assert sum(batches) == 60


@pytest.mark.parametrize("batches", [0, 1])
def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(batches, teacher, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(output_cache, "CACHE_BATCH_SIZE", 8)
    original, calls = OnlineTeacherOutputs.batch, []

    def dying(self, indices, inputs):
        calls.append(None)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return original(self, indices, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(OnlineTeacherOutputs, "batch", dying)
        with pytest.raises(KeyboardInterrupt):
            build_cache(teacher, examples, PLAN.teacher, tmp_path)
    assert not list(tmp_path.glob("*.npy"))
    build_cache(teacher, examples, PLAN.teacher, tmp_path)
    assert not list(tmp_path.glob("*incomplete*"))
    indices = np.arange(30)
    inputs = batch_of(examples, indices)
    got = CachedTeacherOutputs(tmp_path, PLAN, examples, 2).batch(indices, inputs)
    want = OnlineTeacherOutputs(teacher, PLAN).batch(indices, inputs)
    real = inputs["attention_mask"].bool()
    assert torch.allclose(got["hidden_states"][1][real], want["hidden_states"][1][real], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("lost", ["logits.npy", "seconds.json", array_path.__name__])
def test_what_was_lost_is_computed_again(lost, teacher, examples, tmp_path):
    build_cache(teacher, examples, PLAN.teacher, tmp_path)
    path = array_path(tmp_path, "query", 0) if lost == "array_path" else tmp_path / lost
    content = path.read_bytes()
    path.unlink()
    build_cache(teacher, examples, PLAN.teacher, tmp_path)
    assert path.suffix == ".json" or path.read_bytes() == content


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": "3"}', '{"seconds": null}', "[" * 100_000])
def test_seconds_that_are_no_number_are_named(content, teacher, examples, tmp_path):
    build_cache(teacher, examples, PLAN.teacher, tmp_path)
    (tmp_path / "seconds.json").write_text(content)
    with pytest.raises(
        UserError, match=r"seconds\.json is torn.*remove it to have the teacher's outputs computed again"
    ):
        build_cache(teacher, examples, PLAN.teacher, tmp_path)


def test_a_full_disk_is_said_before_anything_is_computed(teacher, examples, tmp_path, monkeypatch):
    needed = bytes_needed(PLAN, examples, 32)
    batches = count_passes(monkeypatch)
    monkeypatch.setattr(output_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed))
    with pytest.raises(UserError, match=r"give another cache\.dir or lower cache\.max_gigabytes") as refusal:
        build_cache(teacher, examples, PLAN.teacher, tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert not batches
    monkeypatch.setattr(output_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * needed))
    build_cache(teacher, examples, PLAN.teacher, tmp_path)


def test_an_output_beyond_half_precision_is_refused(teacher, examples, tmp_path):
    with torch.no_grad():
        teacher.bert.encoder.layer[2].attention.output.dense.bias[0] = 1e6
    with pytest.raises(UserError, match="attention_output of layer 2 is not finite in half precision"):
        build_cache(teacher, examples, {"attention_output": [2]}, tmp_path)
    assert not list(tmp_path.glob("*.npy"))


def targets(accelerator, teacher, plan, examples, cache, folder):
    return stage_targets(accelerator, teacher, plan, examples, cache, folder)


def test_where_a_stage_reads_from(teacher, examples, tmp_path, make_accelerator, capsys):
    accelerator = make_accelerator()
    nothing = targets(accelerator, teacher, CapturePlan(), examples, CacheConfig(), tmp_path / "run")
    assert (nothing.outputs, nothing.seconds_saved(3)) == (None, None)
    assert not (tmp_path / "run").exists()

    disk = targets(accelerator, teacher, PLAN, examples, CacheConfig(), tmp_path / "run")
    assert isinstance(disk.outputs, CachedTeacherOutputs)
    assert disk.seconds_saved(1) == disk.seconds_saved(0.5) == 0
    assert disk.seconds_saved(3) == 2 * disk.seconds_per_pass
    assert disk.gigabytes == bytes_needed(PLAN, examples, 32) / 1e9
    (folder,) = (tmp_path / "run").iterdir()
    assert folder.name == teacher_fingerprint(teacher, examples, None)

    shared = targets(accelerator, teacher, PLAN, examples, CacheConfig(dir=str(tmp_path / "shared")), tmp_path / "run")
    assert isinstance(shared.outputs, CachedTeacherOutputs)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [folder.name]
    assert capsys.readouterr().out == ""

    live = targets(accelerator, teacher, PLAN, examples, CacheConfig(max_gigabytes=1e-9), tmp_path / "other")
    assert isinstance(live.outputs, OnlineTeacherOutputs)
    assert live.seconds_saved(3) is None
    assert not (tmp_path / "other").exists()
    assert "above cache.max_gigabytes" in capsys.readouterr().out


def test_a_stage_that_reads_little_asks_the_teacher_as_it_goes(teacher, examples, tmp_path, make_accelerator):
    for epochs, kind in ((0.49, OnlineTeacherOutputs), (0.5, CachedTeacherOutputs)):
        found = stage_targets(make_accelerator(), teacher, PLAN, examples, CacheConfig(), tmp_path, epochs=epochs)
        assert isinstance(found.outputs, kind)
    assert found.gigabytes > 0


def test_texts_that_are_not_tokenised_yet_count(teacher, examples):
    tokens = len(examples.token_ids)
    alone = disk_needed(teacher, [PLAN], examples, 1.0, None)
    assert disk_needed(teacher, [PLAN], examples, 1.0, None, more_tokens=3 * tokens) == 4 * alone > 0
    assert disk_needed(teacher, [PLAN], examples, 2 * alone / 1e9, None, more_tokens=3 * tokens) == 0


def foreign(rows, dtype=np.float16):
    return lambda path: np.save(path, np.zeros((rows, 8), dtype))


WRONG_FILES = {
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:200]), "is torn"),
    "empty": (lambda path: path.write_bytes(b""), "is torn"),
    "of fewer tokens": (foreign(3), r"holds float16 \(3, 8\), not .* rows of float.*it is not from this run"),
    "of another precision": (foreign(30, np.float64), "holds float64"),
    "a pickle": (
        lambda path: np.save(path, np.array([{"a": 1}], object), allow_pickle=True),
        "is torn: .*Python objects",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
@pytest.mark.parametrize("file", ["logits.npy", "attention_output-layer-0.npy"])
def test_a_cache_that_is_not_what_its_name_says_is_refused(name, file, teacher, examples, tmp_path):
    build_cache(teacher, examples, PLAN.teacher, tmp_path)
    spoil, message = WRONG_FILES[name]
    spoil(tmp_path / file)
    with pytest.raises(UserError, match=message) as refusal:
        CachedTeacherOutputs(tmp_path, PLAN, examples, 2)
    assert f"{file} " in str(refusal.value)
    assert f"remove {tmp_path} to have" in str(refusal.value)


def test_a_cache_of_another_version_has_another_name(teacher, examples, monkeypatch):
    before = teacher_fingerprint(teacher, examples, None)
    monkeypatch.setattr(output_cache, "CACHE_VERSION", output_cache.CACHE_VERSION + 1)
    assert teacher_fingerprint(teacher, examples, None) != before


def test_the_space_of_the_cache_is_taken_before_the_teacher_runs(teacher, examples, tmp_path, monkeypatch):
    """A disk that fills up under a memory map would kill the process; here it is an error that names the file."""

    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(OnlineTeacherOutputs, "batch", lambda *_: pytest.fail("the teacher ran"))
    with pytest.raises(OSError, match="No space left"):
        build_cache(teacher, examples, PLAN.teacher, tmp_path)
