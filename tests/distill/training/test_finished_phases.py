"""What a phase of a run leaves behind, and when it counts as finished."""

from hashlib import sha256

import pytest
from transformers import BertForSequenceClassification

from distill.data.tokenization import train_tokenizer
from distill.training.run_folder import RunFolder, save_model
from distill.utils.errors import UserError


def test_a_phase_is_finished_once_its_result_is_there(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.result("one") is None
    phase = folder.phase("one")
    for name in ("step-00000001", "step-00000002", "checkpoint.incomplete"):
        (phase / name).mkdir(parents=True)
        (phase / name / "model.safetensors").write_text("weights")
    (phase / "best-epoch-1.safetensors").write_text("weights")
    (phase / "student").mkdir()
    (phase / "student" / "model.safetensors").write_text("weights")
    folder.finish("one", {"name": "one", "seconds": 1.5, "history": [{"step": 1}]})
    result = {"name": "one", "seconds": 1.5, "history": [{"step": 1}]}
    assert folder.result("one") == result | {"files": {"model.safetensors": sha256(b"weights").hexdigest()}}
    assert sorted(path.name for path in phase.iterdir()) == ["result.json", "student"]


def test_a_torn_result_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.finish("one", {"name": "one"})
    (folder.phase("one") / "result.json").write_text('{"name": "on')
    with pytest.raises(UserError, match=r"result\.json is torn; remove .*one to run this phase again"):
        folder.result("one")


def test_a_run_is_finished_with_report_record_and_student(tmp_path):
    folder = RunFolder(tmp_path)
    folder.student.mkdir()
    for name in ("record.json", "report.html", "student/config.json", "student/model.safetensors"):
        assert not folder.finished
        (tmp_path / name).write_text("{}")
    assert folder.finished


def test_a_model_is_what_its_phase_left(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("teacher", "stage", "baseline"):
        model = folder.model(name)
        model.mkdir(parents=True)
        for file in ("model.safetensors", "tokenizer.json"):
            (model / file).write_text(f"{file} of {name}")
        folder.finish(name, {"name": name})
        (model / "README.md").write_text("added later")
        assert folder.checked_model(name) == model
        (model / "model.safetensors").write_text(f"model.safetensors of {name[::-1]}")
        assert folder.checked_model(name, "tokenizer*") == model  # what is not read may be anything
        with pytest.raises(
            UserError, match=rf"model.safetensors was changed since phase {name} ended.*remove .*{name} "
        ):
            folder.checked_model(name)
        (model / "tokenizer.json").unlink()
        with pytest.raises(UserError, match=r"tokenizer.json is missing"):
            folder.checked_model(name, "tokenizer*")


def test_a_model_of_an_earlier_version_has_to_be_there(tmp_path):
    folder = RunFolder(tmp_path)
    folder.teacher.mkdir()
    folder.phase("teacher").mkdir(parents=True)
    (folder.phase("teacher") / "result.json").write_text('{"name": "teacher"}')
    (folder.teacher / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model.safetensors is missing since phase teacher ended"):
        folder.checked_model("teacher")
    (folder.teacher / "model.safetensors").write_text("any")
    assert folder.checked_model("teacher") == folder.teacher


def test_phases_after_one_that_is_not_finished_are_not_finished(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("one", "three"):
        folder.phase(name).mkdir(parents=True)
        folder.finish(name, {"name": name})
    assert folder.finished_phases(["one", "two", "three"]) == ["one"]
    folder.student.mkdir()
    folder.forget(["three", "four"])
    assert folder.result("three") is None
    assert folder.result("one") is not None
    assert not folder.student.exists()


def test_a_saved_model_replaces_what_a_kill_left(make_bert, tmp_path):
    (tmp_path / "student.incomplete").mkdir()
    (tmp_path / "student.incomplete" / "junk").write_text("junk")
    tokenizer = train_tokenizer(["one two three"], 40)
    for seed in (0, 1):
        save_model(make_bert(seed=seed), tokenizer, tmp_path / "student")
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    assert not (tmp_path / "student" / "junk").exists()
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "student")
    assert loaded.classifier.weight.equal(make_bert(seed=1).classifier.weight)
