"""Mistakes in configuration, environment and run folder: one line on stderr, exit code 2, nothing left in the way."""

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from distill.utils.cli import run
from pipelines import finetune_teacher

CONFIGURATION: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "unknown key": (["--student.num_lyers", "2"], ("student.num_lyers", "did you mean 'student.num_layers'")),
    "shortened key": (["--student.num_layer", "2"], ("student.num_layer", "did you mean 'student.num_layers'")),
    "unknown section": (["--studnet.num_layers", "2"], ("studnet.num_layers", "student.num_layers")),
    "wrong type": (["--student.num_layers", "two"], ("student.num_layers", "two")),
    "unknown task": (["--task", "sst3"], ("sst3", "did you mean 'sst2'")),
    "unknown attention": (["--student.attention", "perfomer"], ("perfomer", "did you mean 'performer'")),
    "no layers": (["--student.num_layers", "0"], ("student.num_layers is 0",)),
    "layer map of another length": (["--student.layer_map", "[0, 1]"], ("student.layer_map", "num_layers = 1")),
    "features for other layers": (["--student.num_features", "[8, 8]"], ("num_features", "num_layers = 1 numbers")),
    "wider than the teacher": (["--student.hidden_size", "64"], ("student.hidden_size 64 is above the 32", "or null")),
    "more heads than the teacher": (["--student.num_heads", "[3]"], ("student.num_heads [3] is above the 2",)),
    "no units": (["--student.intermediate_size", "0"], ("student.intermediate_size is 0",)),
    "units for other layers": (["--student.intermediate_size", "[8, 8]"], ("num_layers = 1 numbers",)),
    "heads that a mechanism cannot have": (
        ["--student.attention", "fnet", "--student.num_heads", "1"],
        ("student: fnet attention mixes whole hidden states", "1 heads of 16", "give every layer 2 heads"),
    ),
    "a width that the heads do not make": (
        ["--student.attention", "lsra", "--student.hidden_size", "24"],
        ("student: lsra attention mixes whole hidden states", "give a multiple of 16"),
    ),
    "full width of a student that has it": (
        ["--stages", "[{name: a, epochs: 1, learning_rate: 1e-3, width: full, losses: {logits: 1}}]"],
        ("stages.a.width is 'full'", "has full width anyway"),
    ),
    "states of another width": (
        [
            "--student.hidden_size",
            "24",
            "--stages",
            "[{name: a, epochs: 1, learning_rate: 1e-3, inputs: teacher, losses: {attention_output: 1}}]",
        ],
        ("stages.a.inputs is 'teacher'", "width 24", "states of 32", "targets: softmax_student"),
    ),
    "maps of fewer heads": (
        [
            "--student.num_heads",
            "1",
            "--stages",
            "[{name: a, epochs: 1, learning_rate: 1e-3, losses: {attention_map: 1}}]",
        ],
        ("stages.a.losses is 'attention_map'", "has 1 of 2", "value_relations"),
    ),
    "features that are shared": (
        ["--student.attention", "luna", "--student.num_features", "[8]"],
        ("student.num_features", "luna has one for all layers"),
    ),
    "more layers than the teacher": (["--student.num_layers", "3"], ("student.num_layers", "3", "2")),
    "layer beyond the teacher": (["--student.layer_map", "[7]"], ("layer_map", "7")),
    "too short texts": (["--data.max_length", "2"], ("data.max_length is 2", "8")),
    "unknown loss": (
        ["--stages", "[{name: a, epochs: 1, learning_rate: 1e-3, losses: {logit: 1}}]"],
        ("stages.a.losses", "did you mean 'logits'"),
    ),
    "unknown key of a stage": (
        ["--stages", "[{name: a, epoch: 1, learning_rate: 1e-3, losses: {logits: 1}}]"],
        ("stages.epoch", "epochs"),
    ),
    "two stages of one name": (
        [
            "--stages",
            "[{name: a, epochs: 1, learning_rate: 1e-3, losses: {logits: 1}},"
            " {name: a, epochs: 1, learning_rate: 1e-3, losses: {logits: 1}}]",
        ],
        ("stages", "name of its own"),
    ),
    "negative learning rate": (["--teacher.learning_rate", "-1"], ("teacher.learning_rate is -1",)),
    "heads that do not divide": (["--teacher.scratch.num_heads", "3"], ("num_heads is 3", "hidden_size 32")),
    "millions of layers": (["--teacher.scratch.num_layers", "10000000"], ("num_layers is 10000000", "at most 1,000")),
    "millions of layers of a student": (["--student.num_layers", "10000000"], ("student.num_layers", "the teacher's")),
    "millions of features": (["--student.num_features", "10000000"], ("num_features must be at most 65,536",)),
    "a negative window": (
        ["--student.attention", "longformer", "--student.attention_options", "{window: -3}"],
        ("student.attention_options", "window must be a whole number from 0", "got -3"),
    ),
    "an unknown kernel": (
        ["--student.attention_options", "{kernel: foo}"],
        ("student.attention_options", "kernel 'foo'", "favor+, hyperbolic"),
    ),
    "options that do not fit each other": (
        ["--student.attention", "transformer_xl", "--student.attention_options", "{segment: 3, memory: 4}"],
        ("student.attention_options", "memory must be a multiple of the segment"),
    ),
    "options that do not fit the teacher": (
        ["--student.attention", "scaling", "--student.attention_options", "{modules: 7}"],
        ("student: attention option modules 7 must divide hidden_size 32",),
    ),
    "odd held-out share": (["--data.held_out_fraction", "0.9"], ("data.held_out_fraction is 0.9",)),
    "custom without a folder": (["--task", "custom", "--data.dir", "null"], ("data.dir is null", "custom")),
    "custom without files": (["--task", "custom", "--data.dir", "."], ("data.dir", "no train.<")),
    "custom file of no known format": (["--task", "custom", "--data.dir", "README.md"], ("README.md", "csv, tsv")),
    "custom with three columns": (
        ["--task", "custom", "--data.dir", ".", "--data.text_columns", "[a, b, c]"],
        ("data.text_columns", "one or two"),
    ),
    "file for a task that has its own files": (["--data.dir", "README.md"], ("README.md is a file", "task custom")),
    "half the rows for validation": (
        ["--task", "custom", "--data.dir", ".", "--data.validation_fraction", "0.5"],
        ("data.validation_fraction is 0.5", "between 0 and 0.5"),
    ),
    "columns without custom": (["--data.text_columns", "[a]"], ("custom",)),
    "custom columns for an embedded task": (["--task", "imdb", "--data.dir", "embedded"], ("imdb", "embedded")),
    "missing data folder": (["--data.dir", "/no/such/folder"], ("data.dir", "/no/such/folder")),
    "no such checkpoint": (["--teacher.checkpoint", "/no/such/teacher"], ("teacher.checkpoint", "/no/such/teacher")),
    "half precision without a GPU": (["--training.mixed_precision", "fp16"], ("fp16", "GPU", "bf16")),
    "unknown precision": (["--training.mixed_precision", "fp8"], ("training.mixed_precision", "bf16")),
    "precision of the comparison that is none": (["--comparison.dtype", "int3"], ("comparison.dtype", "bfloat16")),
    "negative seed": (["--seed", "-1"], ("seed is -1", "0 to 4294967295")),
    "learning rate that is not a number": (["--teacher.learning_rate", ".nan"], ("teacher.learning_rate", "finite")),
    "endless weight": (["--training.weight_decay", ".inf"], ("training.weight_decay is inf", "finite")),
    "baseline of fewer than no epochs": (["--baseline.epochs", "-1"], ("baseline.epochs is -1",)),
    "texts longer than any model": (["--data.max_length", "1000000000"], ("data.max_length", "131,072")),
    "line break in a path": (["--data.dir", "a\nb"], ("data.dir is 'a\\nb'", "control characters")),
    "path that is not UTF-8": (["--data.dir", "a\udcff"], ("data.dir", "UTF-8")),
    "path without end": (["--data.dir", "x" * 5000], ("data.dir", "File name too long")),
    "home of nobody": (["--data.dir", "~nobody-of-this-name"], ("data.dir", "home directory")),
    "value with a missing bracket": (["--comparison.lengths", "[32"], ("comparison.lengths", "[32")),
    "section that is a word": (["--student", "small"], ("student", "small")),
    "key twice": (["--data", "{max_length: 9, max_length: 10}"], ("'max_length' stands twice",)),
    "Hub name of a teacher without network": (
        ["--teacher.checkpoint", "bert-base-uncased"],
        ("bert-base-uncased", "Hub"),
    ),
    "Hub data without network": (["--data.dir", "null"], ("nyu-mll/glue sst2", "--data.dir")),
    **{
        f"stage called {name!r}": (
            ["--stages", json.dumps([{"name": name, "epochs": 1, "learning_rate": 0.1, "losses": {"logits": 1}}])],
            (f"stages.name is {name[:20]!r}"[:-1],),
        )
        for name in ("../../up", "/etc/stage", "..", "teacher", "teacher_outputs", "", "a" * 200)
    },
}


@pytest.mark.parametrize("name", CONFIGURATION)
def test_configuration(name: str, refused: Callable[..., str]) -> None:
    arguments, expected = CONFIGURATION[name]
    message = refused(*arguments)
    for part in expected:
        assert part in message, message


def test_missing_configuration_file(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "nowhere.yaml" in refused(config=tmp_path / "nowhere.yaml")


STAGE = "{name: one, epochs: 1, learning_rate: 0.1, losses: {logits: 1}}"
BOMB = "".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9) if i else 'x'}]\n" for i in range(10))
FILES: dict[str, tuple[str | bytes, str]] = {
    "not YAML": ("task: [sst2", "broken.yaml"),
    "empty": ("", "holds no keys"),
    "a list": ("- task\n", "holds no keys"),
    "no task": ("seed: 1\n", "missing key"),
    "tabs": ("data:\n\tdir: x\n", "broken.yaml"),
    "latin-1": ("run_dir: Gr\xf6\xdfe\n".encode("latin-1"), "not UTF-8"),
    "UTF-16": ("task: sst2\n".encode("utf-16"), "not UTF-8"),
    "NUL": (b"task: sst2\0\n", "broken.yaml"),
    "two documents": ("task: sst2\n---\nseed: 1\n", "single document"),
    "key twice": ("task: sst2\ntask: cola\n", "line 2: key 'task' stands twice"),
    "key that is a number": ("task: sst2\n1: 2\n", "Key must be a string"),
    "key of a newer version": ("task: sst2\nhyperdrive: {warp: 9}\n", "unknown key 'hyperdrive"),
    "section without keys": (f"task: sst2\nstages: [{STAGE}]\ndata:\n", "data is null: give it keys"),
    "bomb": (BOMB, "aliases for more than 10,000 values"),
    "alias of itself": ("data: &d {dir: *d}\n", "aliases for more than 10,000 values"),
    "nested without end": ("data: " + "[" * 1_000_000, "nested more than 20 levels deep"),
    "Python in a tag": ("run_dir: !!python/object/apply:os.getcwd []\n", "python/object/apply"),
    "class to import": ("data: {class_path: os.path}\n", "'class_path' is not accepted"),
    "module to import": ("data: os.path\n", "data is 'os.path'"),
}


@pytest.mark.parametrize("name", FILES)
def test_configuration_file(name: str, refused: Callable[..., str], tmp_path: Path) -> None:
    content, expected = FILES[name]
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(content.encode() if isinstance(content, str) else content)
    assert expected in refused(config=broken)


def test_run_folder_of_another_configuration(refused: Callable[..., str], finished) -> None:
    message = refused("--seed", "7", "--student.num_features", "8", run_dir=finished.folder)
    assert "seed, student.num_features" in message


def test_run_folder_that_holds_something_else(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    assert "holds other files" in refused(run_dir=tmp_path / "photos")


def test_run_folder_is_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    assert "taken" in refused(run_dir=tmp_path / "taken")
    assert "taken" in refused(run_dir=tmp_path / "taken" / "inner")
    assert (tmp_path / "taken").read_text() == "mine"


def test_run_folder_without_write_permission(refused: Callable[..., str]) -> None:
    assert "--run_dir" in refused(run_dir=Path("/proc/self/run"))  # nobody can write there, not even root


def test_run_folder_without_end(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "too long" in refused(run_dir=Path("x" * 300))


VARIABLES: dict[str, tuple[dict[str, str], str]] = {
    "number of processes that is a word": ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
    "processes without ranks": ({"WORLD_SIZE": "2"}, "RANK is missing"),
    "processes of a machine that are none": ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE is '0'"),
    "processes that are fewer than none": ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
    "rank of nobody": ({"LOCAL_RANK": "0"}, "LOCAL_RANK is 0 in the environment but WORLD_SIZE is missing"),
    "port that is a word": ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
    "unknown precision": ({"ACCELERATE_MIXED_PRECISION": "fp4"}, "ACCELERATE_MIXED_PRECISION is 'fp4'"),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_environment(name: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    variables, expected = VARIABLES[name]
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert expected in refused()


@pytest.mark.parametrize("limit", [20_000, 150_000])
def test_storage_that_gives_out_in_the_middle(
    limit: int, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file may grow beyond a limit, as on a disk that is nearly full; then the same command goes on."""
    options = ["--config", str(tiny.config), "--run_dir", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["finetune_teacher.py", *options])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(SystemExit) as stopped:
            run(finetune_teacher.main)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(("error: file too large", "error: no space left on device"))
    assert line.endswith("start the same command again")
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (9e9, 9e9))  # and the clock is set back in between
    AcceleratorState._reset_state(reset_partial_state=True)
    finetune_teacher.main()
    assert (tmp_path / "run" / "teacher" / "model.safetensors").exists()
    assert not list((tmp_path / "run").rglob("*.incomplete"))


def test_floor_can_be_lowered_after_training(
    tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A teacher that was refused once it was trained is taken at a lower floor, not trained again."""
    options = ["--config", str(tiny.config), "--run_dir", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["finetune_teacher.py", *options, "--teacher.margin_over_majority", "0.9"])
    with pytest.raises(SystemExit) as stopped:
        run(finetune_teacher.main)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "answers every text of validation with" in said.err
    assert "\nteacher  " in said.out
    assert "baseline" not in said.out, "the plan is that of this command"
    trained = (tmp_path / "run" / "teacher" / "model.safetensors").stat().st_mtime_ns
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr("sys.argv", ["finetune_teacher.py", *options])
    finetune_teacher.main()
    assert (tmp_path / "run" / "teacher" / "model.safetensors").stat().st_mtime_ns == trained
