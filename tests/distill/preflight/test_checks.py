"""Every check passes on what is right, and has one line with the way out for what is wrong."""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from distill.config.schema import BaselineConfig, CacheConfig, Config, StageConfig, TeacherConfig, TrainingConfig
from distill.data.tokenization import train_tokenizer
from distill.preflight import checks, resources
from distill.preflight import precision as precision_checks
from distill.preflight.memory_estimate import Memory
from distill.training.launcher import Launcher, Sharding, read_launcher
from distill.utils.errors import UserError
from distill.utils.findings import ERROR, OK, WARNING, Finding, NotReadyError, print_findings, raise_on_error
from students import student_from_teacher

ALONE = Launcher(1, 1, 0, False, None, "no", None)


def make_config(run_dir: Path | str = "runs/none", **settings: object) -> Config:
    stage = StageConfig("layers", 1, 1e-3, {"hidden_states": 1.0})
    return Config("sst2", stages=(stage,), run_dir=str(run_dir), **settings)  # type: ignore[arg-type]


def only(findings: Iterable[Finding], level: str) -> str:
    """Return the line of the one finding there is, which has this level and is one line."""
    found = list(findings)
    assert [finding.level for finding in found] == [level], found
    assert "\n" not in found[0].line
    if level != OK:
        assert ";" in found[0].line, "the way out is missing"
    return found[0].line


def test_versions(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("# a comment\ntorch>=2  # why\n\npytest\n")
    bad.write_text("torch==1.0\nno-such-package>=1\n")
    only(checks.check_versions(good), OK)
    line = only(checks.check_versions(bad), WARNING)
    assert f"torch is {torch.__version__.partition('+')[0]}" in line
    assert "no-such-package is missing" in line


def test_the_launcher_is_read_from_the_environment() -> None:
    assert read_launcher({}).processes == 1
    launcher = read_launcher(
        {
            "WORLD_SIZE": "4",
            "LOCAL_WORLD_SIZE": "2",
            **{"RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
            "ACCELERATE_USE_CPU": "true",
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_MIXED_PRECISION": "bf16",
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
        }
    )
    assert launcher == Launcher(4, 2, 0, True, None, "bf16", "auto")
    assert read_launcher({"ACCELERATE_USE_FSDP": "true"}).unsupported == "FSDP"


GOOD_LAUNCHERS = {
    "one process": (ALONE, {}),
    "as many processes as GPUs": (Launcher(8, 4, 4, False, None, "bf16", None), {}),
    "DeepSpeed": (Launcher(2, 2, 0, True, None, "no", "auto"), {}),
    "a launcher that was not asked": (ALONE, {"training": TrainingConfig(mixed_precision="bf16")}),
    "the same precision": (
        dataclasses.replace(ALONE, mixed_precision="bf16"),
        {"training": TrainingConfig(mixed_precision="bf16")},
    ),
    "fp16 on a GPU": (dataclasses.replace(ALONE, gpus=1), {"training": TrainingConfig(mixed_precision="fp16")}),
}


@pytest.mark.parametrize("name", GOOD_LAUNCHERS)
def test_launchers_that_fit(name: str) -> None:
    launcher, settings = GOOD_LAUNCHERS[name]
    only(checks.check_launcher(make_config(**settings), launcher), OK)


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        (ALONE, "launcher: 1 process, no DeepSpeed, CPU"),
        (dataclasses.replace(ALONE, gpus=1), "launcher: 1 process, no DeepSpeed, 1 GPU"),
        (Launcher(8, 4, 4, True, None, "no", None), "launcher: 8 processes, DeepSpeed, 4 GPUs"),
    ],
)
def test_one_of_a_kind_is_told_as_one(launcher: Launcher, words: str) -> None:
    assert only(checks.check_launcher(make_config(), launcher), OK) == words


def precision(wanted: str | None, launcher: Launcher = ALONE, **how: bool) -> Iterable[Finding]:
    config = make_config(training=TrainingConfig(mixed_precision=wanted))
    return precision_checks.check_precision(config, launcher, **how)


@pytest.mark.parametrize("wanted", ["auto", "no", None])
def test_what_any_device_computes_is_fine(wanted: str | None) -> None:
    only(precision(wanted), OK)


@pytest.mark.parametrize("theirs", ["no", "fp16"])
def test_fp16_needs_a_gpu(theirs: str) -> None:
    launcher = dataclasses.replace(ALONE, mixed_precision=theirs)
    line = only(precision("fp16" if theirs == "no" else "auto", launcher), ERROR)
    assert "fp16 needs a GPU" in line


def test_a_launcher_of_another_precision_is_overruled() -> None:
    findings = list(precision("no", dataclasses.replace(ALONE, mixed_precision="bf16")))
    assert [finding.level for finding in findings] == [WARNING, OK]
    assert "which is used" in findings[0].line


def test_an_emulated_precision_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_checks, "native_precision", lambda device: "no")
    monkeypatch.setattr(precision_checks, "bf16_slowdown", lambda: 54.2)
    assert "54.2 times as long" in only(precision("bf16"), WARNING)
    assert "54.2 times as long" in only(precision("auto", dataclasses.replace(ALONE, mixed_precision="bf16")), WARNING)
    assert "keeps it" in only(precision("bf16", kept=True), WARNING)


def test_a_run_keeps_the_precision_that_it_began_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_checks, "native_precision", lambda device: "bf16")
    assert "began with no" in only(precision("no", kept=True), WARNING)
    only(precision("no"), OK)


def test_stages_of_too_few_steps() -> None:
    stage = StageConfig("logits", 1, 1e-3, {"logits": 1.0}, batch_size=32)
    assert list(checks.check_lengths([stage], 3200)) == []
    line = only(checks.check_lengths([stage], 1000), WARNING)
    assert "stages.logits: 32 steps" in line
    assert "give it 4 epochs" in line


BAD_LAUNCHERS = {
    "more processes than GPUs": (Launcher(4, 4, 2, False, None, "no", None), {}, ERROR, "4 processes"),
    "FSDP": (dataclasses.replace(ALONE, unsupported="FSDP"), {}, ERROR, "configs/accelerate"),
    "another accumulation": (
        Launcher(1, 1, 0, True, None, "no", "4"),
        {"training": TrainingConfig(gradient_accumulation=2)},
        WARNING,
        "gradient_accumulation_steps 4",
    ),
    "a teacher's batch that does not divide": (
        Launcher(2, 2, 0, True, None, "no", "auto"),
        {"teacher": TeacherConfig(batch_size=33)},
        WARNING,
        "teacher.batch_size 33 is not a multiple of 2 processes",
    ),
    "a baseline's batch that does not divide": (
        Launcher(2, 2, 0, False, None, "no", None),
        {"baseline": BaselineConfig(batch_size=6), "training": TrainingConfig(gradient_accumulation=4)},
        WARNING,
        "give 8",
    ),
}


@pytest.mark.parametrize("name", BAD_LAUNCHERS)
def test_launchers_that_do_not_fit(name: str) -> None:
    launcher, settings, level, expected = BAD_LAUNCHERS[name]
    assert expected in only(checks.check_launcher(make_config(**settings), launcher), level)


def test_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deepspeed = Launcher(2, 2, 0, True, None, "no", "auto")
    operation = tmp_path / "py311_cpu" / "deepspeed_shm_comm"
    operation.mkdir(parents=True)
    assert "takes minutes and prints nothing" in only(checks.check_compiler(deepspeed, tmp_path), WARNING)
    (operation / "lock").touch()
    assert "deepspeed_shm_comm/lock" in only(checks.check_compiler(deepspeed, tmp_path), WARNING)
    (operation / "lock").unlink()
    (operation / "deepspeed_shm_comm.so").touch()
    only(checks.check_compiler(deepspeed, tmp_path), OK)
    only(checks.check_compiler(deepspeed, operation.parent), OK)  # as below TORCH_EXTENSIONS_DIR
    only(checks.check_compiler(ALONE, tmp_path), OK)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "g++" in only(checks.check_compiler(deepspeed, tmp_path), ERROR)


def test_write_permission(tmp_path: Path) -> None:
    only(checks.check_write_permission(make_config(tmp_path / "run")), OK)
    only(checks.check_write_permission(make_config(tmp_path / "run", cache=CacheConfig(str(tmp_path / "c")))), OK)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("mine")
    assert "file in its place" in only(checks.check_write_permission(make_config(tmp_path / "file")), ERROR)
    blocked = make_config(tmp_path / "run", cache=CacheConfig(str(tmp_path / "file" / "cache")))
    assert "cache.dir" in only(checks.check_write_permission(blocked), ERROR)


def test_checkpoints_of_another_launcher(tmp_path: Path) -> None:
    plain, two = ALONE, Launcher(2, 2, 0, True, None, "no", "auto")
    only(checks.check_checkpoints(tmp_path, plain), OK)
    step = tmp_path / "layers" / "step-00000003"
    step.mkdir(parents=True)
    (step / "random_states_0.pkl").touch()
    only(checks.check_checkpoints(tmp_path, plain), OK)
    only(checks.check_checkpoints(tmp_path, Launcher(4, 4, 0, False, None, "no", None)), OK)
    assert "without DeepSpeed" in only(checks.check_checkpoints(tmp_path, two), ERROR)
    (step / "pytorch_model").mkdir()
    (step / "random_states_1.pkl").touch()
    only(checks.check_checkpoints(tmp_path, two), OK)
    assert "DeepSpeed on 2 processes" in only(checks.check_checkpoints(tmp_path, plain), ERROR)
    only(checks.check_checkpoints(tmp_path, dataclasses.replace(two, processes=4)), ERROR)


def test_tokenizers() -> None:
    texts = [("a good film",), ("a bad film",)]
    first, same = (train_tokenizer([text for (text,) in texts], 60) for _ in range(2))
    other = train_tokenizer(["something else entirely"], 60)
    only(checks.check_tokenizers(first, {"baseline.checkpoint": same}, texts), OK)
    line = only(checks.check_tokenizers(first, {"baseline.checkpoint": other}, texts), ERROR)
    assert "baseline.checkpoint reads other tokens" in line


def test_student_that_is_right(make_bert, make_examples) -> None:
    student, _ = student_from_teacher(make_bert(), layer_map=[0, 1], attention="performer")
    assert "padding" in only(checks.check_student(student, make_examples()), OK)


def test_student_that_reads_its_padding(make_bert, make_examples, monkeypatch: pytest.MonkeyPatch) -> None:
    student, _ = student_from_teacher(make_bert(), layer_map=[0, 1], attention="performer")
    monkeypatch.setattr("students.modeling.real_tokens", lambda mask: None)
    assert "padding change its logits" in only(checks.check_student(student, make_examples()), ERROR)


def test_student_that_is_not_finite(make_bert, make_examples) -> None:
    student, _ = student_from_teacher(make_bert(), layer_map=[0, 1], attention="performer")
    nn.init.constant_(student.classifier.bias, float("nan"))
    assert "not finite" in only(checks.check_student(student, make_examples()), ERROR)


def test_memory() -> None:
    need = Memory(4 * 10**9, 10**9, 2 * 10**9, 3 * 10**9)

    def check(free: int, memory: Memory = need, host: int = 10**12, zero: int | None = None) -> list[Finding]:
        return list(resources.check_memory("layers", memory, Sharding(2, zero), "cuda", free, host))

    assert "layers needs 10.00 GB" in only(check(11 * 10**9), OK)
    assert "lower batch_size" in only(check(9 * 10**9), WARNING)
    assert "deepspeed_zero2" in only(check(6 * 10**9), ERROR)
    assert "offload_optimizer_device" in only(check(6 * 10**9, zero=2), ERROR)
    offloaded = dataclasses.replace(need, offloaded=5 * 10**9)
    assert "no offloading" in only(check(11 * 10**9, offloaded, host=10**9), ERROR)


def test_memory_table() -> None:
    lines = list(resources.memory_table(lambda way: Memory(10**9 * way.processes, 0, 0, 0), half=False))
    assert lines[0].split()[-2:] == ["8", "processes"]
    assert [line.split()[-3:] for line in lines[1:]] == [["1.00", "2.00", "8.00"]] * 5


def test_disk(tmp_path: Path) -> None:
    run_dir, cache = tmp_path / "run", tmp_path / "cache"
    line = only(resources.check_disk({run_dir: 10**6, cache: 10**7}), OK)
    assert "needs 0.01 GB" in line, "folders on one disk are added up"
    assert str(run_dir) in line
    assert "cache.max_gigabytes" in only(resources.check_disk({run_dir: 10**18}), ERROR)
    assert not run_dir.exists()


def test_settle_warns_and_stops_at_the_first_error(capsys: pytest.CaptureFixture[str]) -> None:
    raise_on_error([Finding(OK, "one"), Finding(WARNING, "two; way out")])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "warning: two; way out\n"

    def findings() -> Iterable[Finding]:
        yield Finding(ERROR, "three; way out")
        raise AssertionError("nothing is looked at after an error")

    with pytest.raises(UserError, match="three; way out"):
        raise_on_error(findings())


def test_show_prints_everything_before_it_stops(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding(ERROR, "one; way out"), Finding(OK, "two")]
    with pytest.raises(NotReadyError):
        print_findings(findings)
    assert capsys.readouterr().out == "error   one; way out\nok      two\n"
    monkeypatch.setenv("RANK", "1")  # of several processes one speaks
    print_findings(findings[1:])
    assert capsys.readouterr().out == ""
