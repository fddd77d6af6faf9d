"""The teacher's outputs are computed once, stored where they fit, and nothing half-written is taken for them."""

import errno
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.layer_outputs import FIRST, FORCED, OUTPUTS, PLAN, STAGE, batch_of, flat

from distill.config.schema import CacheConfig
from distill.objectives.capture_plan import CapturePlan, plan_stage
from distill.utils.errors import UserError
from teachers import output_cache
from teachers.cache_folder import find_entries, remove_entry
from teachers.loading import freeze
from teachers.output_cache import build_cache, bytes_of, keep_outputs, stage_targets, teacher_fingerprint
from teachers.output_format import Output
from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs


def test_room_on_disk_is_what_was_announced(teacher, examples, tmp_path):
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    arrays = [path for path in tmp_path.glob("*.npy") if path.name != "logits.npy"]
    assert len(arrays) == 8
    header = 192
    assert sum(path.stat().st_size - header for path in arrays) == bytes_of(OUTPUTS, examples, 32)
    assert bytes_of(OUTPUTS, examples, 32) == 8 * len(examples.token_ids) * (32 + 8)


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
    seconds = build_cache(teacher, examples, OUTPUTS, tmp_path)
    assert sum(batches) == 30
    assert build_cache(teacher, examples, OUTPUTS, tmp_path) == seconds
    assert build_cache(teacher, examples, [], tmp_path) == seconds  # a later stage that reads the logits alone
    assert sum(batches) == 30
    build_cache(teacher, examples, [Output("hidden_states", 0), Output("hidden_states", 2)], tmp_path)
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
            build_cache(teacher, examples, OUTPUTS, tmp_path)
    assert not list(tmp_path.glob("*.npy"))
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    assert not list(tmp_path.glob("*incomplete*"))
    indices = np.arange(30)
    inputs = batch_of(examples, indices)
    got = CachedTeacherOutputs(tmp_path, PLAN, examples, 16).batch(indices, inputs)
    want = OnlineTeacherOutputs(teacher, PLAN).batch(indices, inputs)
    real = inputs["attention_mask"].bool()
    assert torch.allclose(got["hidden_states"][1][real], want["hidden_states"][1][real], atol=0.02)


def test_what_kills_left_goes_and_what_others_are_writing_stays(teacher, examples, tmp_path):
    own, living, dead = (tmp_path / f"arrays.{process}.incomplete" for process in (os.getpid(), os.getppid(), 2**30))
    for left in (own, living, dead):
        left.mkdir()
        (left / "logits.npy").write_bytes(b"half")
    build_cache(teacher, examples, [], tmp_path)
    assert [path for path in tmp_path.iterdir() if "incomplete" in path.name] == [living]


@pytest.mark.parametrize("lost", ["logits.npy", "seconds.json", "an array"])
def test_what_was_lost_is_computed_again(lost, teacher, examples, tmp_path):
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    path = Output("query", 0).path(tmp_path) if lost == "an array" else tmp_path / lost
    content = path.read_bytes()
    path.unlink()
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    assert path.suffix == ".json" or path.read_bytes() == content


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": "3"}', '{"seconds": null}', "[" * 100_000])
def test_seconds_that_are_no_number_are_named(content, teacher, examples, tmp_path):
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    (tmp_path / "seconds.json").write_text(content)
    with pytest.raises(
        UserError, match=r"seconds\.json is torn.*remove it to have the teacher's outputs computed again"
    ):
        build_cache(teacher, examples, OUTPUTS, tmp_path)


def test_a_full_disk_is_said_before_anything_is_computed(teacher, examples, tmp_path, monkeypatch):
    needed = bytes_of(OUTPUTS, examples, 32)
    batches = count_passes(monkeypatch)
    monkeypatch.setattr(output_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed))
    with pytest.raises(UserError, match=r"give another cache\.dir or lower cache\.max_gigabytes") as refusal:
        build_cache(teacher, examples, OUTPUTS, tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert not batches
    monkeypatch.setattr(output_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * needed))
    build_cache(teacher, examples, OUTPUTS, tmp_path)


def test_an_output_that_is_no_number_is_refused(teacher, examples, tmp_path):
    with torch.no_grad():
        teacher.bert.encoder.layer[2].attention.output.dense.bias[0] = torch.inf
    with pytest.raises(UserError, match="attention_output of layer 2 is not finite"):
        build_cache(teacher, examples, [Output("attention_output", 2)], tmp_path)
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
    assert disk.gigabytes == bytes_of(OUTPUTS, examples, 32) / 1e9
    (folder,) = [path for path in (tmp_path / "run").iterdir() if path.is_dir()]
    assert folder.name == teacher_fingerprint(teacher, examples, None)

    shared = targets(accelerator, teacher, PLAN, examples, CacheConfig(dir=str(tmp_path / "shared")), tmp_path / "run")
    assert isinstance(shared.outputs, CachedTeacherOutputs)
    assert [path.name for path in (tmp_path / "shared").iterdir() if path.is_dir()] == [folder.name]
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
        build_cache(teacher, examples, OUTPUTS, tmp_path)


def test_what_no_later_stage_reads_goes(teacher, examples, tmp_path):
    build_cache(teacher, examples, OUTPUTS, tmp_path)
    np.save(tmp_path / "query-layer-0.npy", np.zeros((3, 2), np.float16))  # of an earlier version
    keep_outputs(tmp_path, [Output("query", 2)])
    arrays = sorted(path.name for path in tmp_path.glob("*.npy"))
    assert arrays == ["logits.npy", "query-layer-2-uint8.npy"]


def test_one_pass_computes_what_later_stages_read(teacher, examples, tmp_path, make_accelerator, monkeypatch):
    batches = count_passes(monkeypatch)
    accelerator, later = make_accelerator(), flat(FORCED)
    for plan, more in ((FIRST, later), (FORCED, frozenset())):
        stage_targets(accelerator, teacher, plan, examples, CacheConfig(), tmp_path, later=more).end()
    assert sum(batches) == 30


def test_live_where_the_disk_spares_nothing(teacher, examples, tmp_path, make_accelerator):
    accelerator = make_accelerator()
    live = stage_targets(accelerator, teacher, FIRST, examples, CacheConfig(), tmp_path, worth_storing=False)
    assert isinstance(live.outputs, OnlineTeacherOutputs)
    assert list(tmp_path.iterdir()) == []
    logits = plan_stage(replace(STAGE, losses={"logits": 1.0}), [0, 2], 3)
    disk = stage_targets(accelerator, teacher, logits, examples, CacheConfig(), tmp_path, worth_storing=False)
    assert isinstance(disk.outputs, CachedTeacherOutputs)


def test_a_shared_cache_keeps_to_its_limit(make_bert, examples, tmp_path, make_accelerator):
    """The least recently used go for new ones, and none that a stage is reading."""
    accelerator, size = make_accelerator(), bytes_of(flat(FIRST), examples, 32)
    cache = CacheConfig(dir=str(tmp_path), max_gigabytes=2.6 * size / 1e9)
    kept = []
    for seed in range(3):
        kept.append(stage_targets(accelerator, freeze(make_bert(3, seed=seed)), FIRST, examples, cache, tmp_path))
        os.utime(kept[-1].folder.with_name(f"{kept[-1].folder.name}.lock"), (seed, seed))
        if seed:
            kept[-1].end()  # the oldest is still read
    folders = [targets.folder for targets in kept]
    assert [folder.exists() for folder in folders] == [True, False, True]
    indices = np.arange(30)
    kept[0].outputs.batch(indices, batch_of(examples, indices))
    assert not remove_entry(find_entries(tmp_path)[0])
    kept[0].end()
    assert remove_entry(find_entries(tmp_path)[0])
    assert [folder.exists() for folder in folders] == [False, False, True]
