"""Gathered text holds every train text once, and none that a model is scored on."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.utils.errors import UserError
from pipelines import gather_text

LONG = " ".join(f"w{number}" for number in range(40))


@pytest.fixture
def data(tmp_path):
    def write(task, split, **columns):
        folder = tmp_path / "data" / task
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")

    sentences = [f"sentence number {number}" for number in range(600)]
    write("sst2", "train", sentence=[*sentences, "Scored, at the end", sentences[0]], label=[0] * 602)
    write("sst2", "validation", sentence=["scored at the end", "another"], label=[0, 1])
    write("rte", "train", sentence1=["a premise"], sentence2=["tested later"], label=[0])
    write("rte", "validation", sentence1=["x"], sentence2=["y"], label=[0])
    write("rte", "test", sentence1=["Tested later"], sentence2=[LONG], label=[-1])
    (tmp_path / "more.txt").write_text(f"a paragraph\n\nit quotes {LONG} whole\n")
    return tmp_path


def gather(data, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["gather_text.py", *arguments, "--output", str(data / "out")])
    return gather_text.main()


def test_texts_are_taken_once_and_withheld_ones_stay_out(data, monkeypatch, capsys):
    files = ["--data.dir", str(data / "data"), "--tasks", "sst2", "rte", "--files", str(data / "more.txt")]
    assert gather(data, monkeypatch, *files) == 0
    train, validation = ((data / "out" / f"{name}.txt").read_text().splitlines() for name in ("train", "validation"))
    expected = {f"sentence number {number}" for number in range(600)} | {"a premise", "a paragraph"}
    assert sorted([*train, *validation]) == sorted(expected)
    assert 0 < len(validation) < 30
    numbers = [int(line.split()[-1]) for line in train if line.startswith("sentence")]
    assert numbers != sorted(numbers)  # in blocks, so that no end of the text is of one source
    about = json.loads((data / "out" / "sources.json").read_text())
    assert about["sources"]["sst2 train"] == {"taken": 600, "withheld": 1, "seen_before": 1}
    assert about["sources"]["rte train"] == {"taken": 1, "withheld": 1, "seen_before": 0}
    assert about["sources"][str(data / "more.txt")] == {"taken": 1, "withheld": 1, "seen_before": 0}
    assert about["withheld_splits"] == {"sst2": ["validation"], "rte": ["validation", "test"]}
    told = capsys.readouterr().out
    assert "600 taken" in told
    assert "withheld of sst2: validation; not there: test\n" in told
    assert "withheld of rte: validation, test\n" in told


@pytest.mark.parametrize("split", ["test_matched", "test_mismatched"])
def test_every_test_split_that_there_is_stays_out(tmp_path, monkeypatch, split):
    folder = tmp_path / "data" / "mnli"
    folder.mkdir(parents=True)
    for name in ("train", "validation_matched", "validation_mismatched", split):
        said = [f"{name} {number}" for number in range(5)]
        said += [f"{split} 3"] if name == "train" else []
        columns = {"premise": said, "hypothesis": ["" for _ in said], "label": [0 for _ in said]}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    assert gather(tmp_path, monkeypatch, "--data.dir", str(tmp_path / "data"), "--tasks", "mnli") == 0
    assert f"{split} 3" not in (tmp_path / "out" / "train.txt").read_text()
    about = json.loads((tmp_path / "out" / "sources.json").read_text())
    assert about["withheld_splits"]["mnli"] == ["validation_matched", "validation_mismatched", split]


def test_a_task_without_test_splits_may_have_one_in_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "klue_nli"
    folder.mkdir(parents=True)
    for split, said in {"train": ["one", "two", "three"], "validation": ["four"], "test": ["two"]}.items():
        columns = {"premise": said, "hypothesis": ["" for _ in said], "label": [0 for _ in said]}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    gather(tmp_path, monkeypatch, "--data.dir", str(tmp_path / "data"), "--tasks", "klue_nli")
    found = [(tmp_path / "out" / f"{name}.txt").read_text().strip() for name in ("train", "validation")]
    assert sorted(found) == ["one", "three"]


def test_a_test_split_that_cannot_be_read_is_not_passed_over(data, monkeypatch):
    (data / "data" / "sst2" / "test.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match="Excel"):
        gather(data, monkeypatch, "--data.dir", str(data / "data"), "--tasks", "sst2")


def test_lines_of_a_withheld_file_stay_out(data, monkeypatch):
    (data / "scored.txt").write_text("A paragraph!\n")
    files = ["--files", str(data / "more.txt"), "--withhold", str(data / "scored.txt"), "--tasks", "sst2"]
    gather(data, monkeypatch, *files, "--data.dir", str(data / "data"))
    assert "a paragraph" not in (data / "out" / "train.txt").read_text()


def test_few_texts_leave_one_for_validation_and_nothing_is_written_of_too_few(data, monkeypatch):
    (data / "two.txt").write_text("one\ntwo\n")
    gather(data, monkeypatch, "--files", str(data / "two.txt"))
    found = [(data / "out" / f"{name}.txt").read_text().strip() for name in ("train", "validation")]
    assert sorted(found) == ["one", "two"]
    (data / "one.txt").write_text("three\n")
    with pytest.raises(UserError, match="1 texts are left"):
        gather(data, monkeypatch, "--files", str(data / "one.txt"))
    assert (data / "out" / "train.txt").read_text().strip() == found[0]


def test_what_is_drawn_for_validation_does_not_depend_on_the_rest(data, monkeypatch):
    gather(data, monkeypatch, "--data.dir", str(data / "data"), "--tasks", "sst2")
    alone = set((data / "out" / "validation.txt").read_text().splitlines())
    gather(data, monkeypatch, "--data.dir", str(data / "data"), "--tasks", "rte", "sst2")
    assert set((data / "out" / "validation.txt").read_text().splitlines()) == alone


def test_blocks_stay_together_and_sources_are_mixed():
    lines = [str(number) for number in range(1000)]
    mixed = gather_text.in_blocks(lines)
    assert sorted(mixed) == sorted(lines)
    assert mixed != lines
    starts = [int(line) for line in mixed[:: gather_text.BLOCK]]
    assert all(start % gather_text.BLOCK == 0 for start in starts)
    first = mixed.index("0")
    assert mixed[first : first + 10] == lines[:10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to gather"),
        (["--tasks", "sst22"], "none of them"),
        (["--tasks", "sst2", "--data.dir", "nowhere"], "there is no folder nowhere"),
        (["--files", "nowhere.txt"], "nowhere.txt"),
        (["--files", "table.csv"], "table.csv is a table"),
        (["--tasks", "custom"], "'custom' is none of them"),
        (["--tasks", "wnli", "--data.dir", "numbers"], "sentence1"),
    ],
)
def test_a_mistake_ends_in_one_line(data, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(data)
    (data / "table.csv").write_text("text,label\na,0\n")
    (data / "numbers" / "wnli").mkdir(parents=True)
    for split in ("train", "validation"):
        (data / "numbers" / "wnli" / f"{split}.jsonl").write_text('{"sentence1": 7, "sentence2": "a", "label": 0}\n')
    monkeypatch.setattr("sys.argv", ["gather_text.py", *arguments, "--output", str(data / "out")])
    with pytest.raises(SystemExit) as stopped:
        gather_text.command()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
