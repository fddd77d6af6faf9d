"""`--check` looks at everything, prints one line per check, and leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from helpers.tickets import CLASSES, write_tickets

from distill.config.parsing import parse_command
from distill.utils.cli import run
from pipelines.distill import main


@pytest.fixture(autouse=True)
def no_accelerator() -> Iterator[None]:
    """Forget the process-wide state that the command leaves behind when it is called in this process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def check(tiny, run_dir: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[object, list[str]]:
    """Run the command with ``--check`` in this process; return the exit code and what it printed."""
    options = ["--config", str(tiny.config), "--run_dir", str(run_dir), "--check", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["pipelines/distill.py", *options])
        with pytest.raises(SystemExit) as stopped:
            run(main)
    return stopped.value.code, capsys.readouterr().out.splitlines()


def test_everything_is_in_order(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(tiny, tmp_path / "run", capsys)
    assert code == 0
    checks = ["versions", "launcher", "precision", "compiler", "run folder", "checkpoints"]
    checks += ["teacher", "tokenizer", "student", "memory", "disk"]
    found = [line for line in lines if line.startswith(("ok      ", "error   "))]
    assert [line[8:].partition(":")[0] for line in found] == checks
    assert all(line.startswith("ok      ") for line in found)
    assert "checked after fine-tuning" in found[6]
    planned = [line.split()[0] for line in lines if line.endswith((" s", " min"))]
    assert planned == ["teacher", "layers", "logits", "baseline"]
    assert any(line.startswith("ZeRO-2") for line in lines)
    assert not (tmp_path / "run").exists()


def test_hundreds_of_epochs_need_no_more_disk_than_a_few(
    tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = []
    for epochs in (5, 500):
        _, lines = check(tiny, tmp_path / "run", capsys, "--teacher.epochs", str(epochs))
        needed += [line.partition(" of ")[0] for line in lines if line.startswith("ok      disk")]
        AcceleratorState._reset_state(reset_partial_state=True)
    assert len(needed) == 2
    assert needed[0] == needed[1]


def test_what_is_trained_instead_of_what_was_asked_is_a_warning(
    tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = "{name: one, epochs: 1, learning_rate: 1e-3, losses: {attention_map: 1}, train: features, inputs: teacher}"
    student = ("--student.attention", "reformer", "--student.features", "learned")
    code, lines = check(tiny, tmp_path / "run", capsys, *student, "--stages", f"[{stage}]")
    assert code == 0
    assert [line for line in lines if line.startswith("warning")] == [
        "warning stages: reformer attention has no attention_map; attention_output stands in",
        "warning student.num_features 16 has no effect: reformer attention has no features, landmarks or slots; null "
        "says so",
        "warning student.features learned has no effect: reformer attention has no random features; fixed says so",
        "warning stages.one.train is features, which reformer attention has none of; "
        "its whole attention blocks are trained, at the learning rate 0.001",
        "warning: stages.one: 8 steps (240 texts in batches of 32, epochs 1) teach little; give it 13 epochs, or "
        "write stages: auto",
    ]


def test_a_file_of_ones_own_is_described(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tickets(tmp_path / "tickets.csv", 300)
    options = ("--task", "custom", "--data.dir", str(tmp_path / "tickets.csv"), "--data.max_train_examples", "null")
    code, lines = check(tiny, tmp_path / "run", capsys, *options)
    assert code == 0
    assert [line.split()[:2] for line in lines if line.startswith(("train  ", "validation  "))] == [
        ["train", "192"],
        ["validation", "60"],
    ]
    assert [line.split()[0] for line in lines if line.startswith(CLASSES)] == list(CLASSES)
    assert "columns found: texts 'text', label 'label'" in lines
    plain = [line for line in lines if line.startswith("validation  ")]
    (tmp_path / "other.csv").write_text(
        (tmp_path / "tickets.csv").read_text().replace("text,label", "review,class", 1)
    )
    code, lines = check(tiny, tmp_path / "run", capsys, *options, "--data.dir", str(tmp_path / "other.csv"))
    assert "columns found: texts 'review', label 'class'" in lines
    assert [line for line in lines if line.startswith("validation  ")] == plain
    named = ("--data.text_columns", "text", "--data.label_column", "label")
    code, lines = check(tiny, tmp_path / "run", capsys, *options, *named)
    assert code == 0
    assert not any(line.startswith("columns found") for line in lines)


def test_texts_without_labels_are_counted_and_nothing_is_written(
    tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Disk and time grow with them; beyond the cache, layer outputs take no disk."""
    (tmp_path / "texts.txt").write_text("".join(f"the film number {row} is not dull\n" for row in range(20_000)))
    options = ("--data.unlabelled", str(tmp_path / "texts.txt"))
    needed, rows = [], []
    for more in ((), options, (*options, "--cache.max_gigabytes", "0.01")):
        code, lines = check(tiny, tmp_path / "run", capsys, *more)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert code == 0
        needed += [float(line.split()[3]) for line in lines if line.startswith("ok      disk: needs")]
        rows += [line.split()[2] for line in lines if line.startswith("without labels")]
        plan = [line for line in lines if line.startswith(("layers ", "tokenising the texts without labels"))]
        assert len(plan) == (1 if not more else 2)
    assert rows == ["20,000"] * 2
    assert int(plan[0].split()[1].replace(",", "")) == 633, "20,240 texts in batches of 32"
    assert any(line.startswith("texts without labels: 20,000 (about ") for line in lines)
    assert needed[1] > needed[2] >= needed[0]  # to ten megabytes
    assert not (tmp_path / "run").exists()


def test_a_mistake_ends_the_list_with_exit_code_2(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(tiny, tmp_path / "run", capsys, "--data.dir", "/no/such/folder")
    assert code == 2
    assert lines[-1] == "error   data.dir: there is no folder /no/such/folder"
    assert lines[0].startswith("ok      versions")
    assert not (tmp_path / "run").exists()


def test_errors_found_before_loading_are_all_printed(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    code, lines = check(tiny, tmp_path / "file", capsys, "--training.mixed_precision", "fp16")
    assert code == 2
    assert [line.split(maxsplit=1)[0] for line in lines] == ["ok", "ok", "error", "ok", "error", "ok"]


def test_a_run_that_has_its_teacher_is_looked_at_for_real(
    tiny, without_chance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--config", str(without_chance.config))
    code, lines = check(tiny, tmp_path / "run", capsys, *options)
    assert code == 0
    assert any("teacher: outputs are finite, labels in the data's order" in line for line in lines)
    code, lines = check(tiny, tmp_path / "run", capsys, *options, "--teacher.margin_over_majority", "1")
    assert code == 2
    assert any(line.startswith("error   Matthews' correlation of the teacher's answers") for line in lines)


def test_the_flag_is_no_key(tiny, tmp_path: Path) -> None:
    options = ["--config", str(tiny.config), "--run_dir", str(tmp_path)]
    config, only_check = parse_command(options)
    assert not only_check
    assert parse_command([*options, "--check"]) == (config, True)
