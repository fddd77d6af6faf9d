"""Files for GLUE's server: names, header, how each task's answers are written, and that no label is read."""

import numpy as np
import pytest

from distill.data.splits import HIDDEN
from distill.evaluation.glue_submission import FILES, load_test_texts, submission_text
from distill.tasks import CUSTOM, TASKS, custom_task
from distill.utils.errors import UserError


def test_every_glue_task_has_its_files():
    assert set(FILES) == {name for name, task in TASKS.items() if task.hub and task.hub[0] == "nyu-mll/glue"}
    assert all(tuple(files) == TASKS[name].test_splits for name, files in FILES.items())
    assert {file for files in FILES.values() for file in files.values()} == {
        *("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv"),
        *("MNLI-m.tsv", "MNLI-mm.tsv", "QNLI.tsv", "RTE.tsv", "WNLI.tsv"),
    }


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("sst2", ["1", "0"]),
        ("wnli", ["1", "0"]),
        ("rte", ["not_entailment", "entailment"]),
        ("qnli", ["not_entailment", "entailment"]),
        ("mnli", ["neutral", "entailment"]),
    ],
)
def test_classes_are_written_as_the_server_reads_them(name, answers):
    logits = np.eye(TASKS[name].num_labels)[[1, 0]]
    assert submission_text(TASKS[name], logits) == f"index\tprediction\n0\t{answers[0]}\n1\t{answers[1]}\n"


def test_scores_are_clipped_to_the_range():
    text = submission_text(TASKS["stsb"], np.array([[-0.3], [2.34567], [5.5]]))
    assert text.splitlines()[1:] == ["0\t0.000", "1\t2.346", "2\t5.000"]


@pytest.mark.parametrize("header", ["sentence", "sentence\tlabel", "index\tsentence"])
def test_no_label_is_read(tmp_path, header):
    columns = header.split("\t")
    row = "\t".join({"sentence": "good", "label": "secret", "index": "7"}[name] for name in columns)
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "test.tsv").write_text(f"{header}\n{row}\n{row}\n")
    examples = load_test_texts(TASKS["sst2"], str(tmp_path))["test"]
    assert examples.texts == [("good",), ("good",)]
    assert examples.labels.tolist() == [HIDDEN, HIDDEN]


def test_what_has_no_test_split_is_refused(tmp_path):
    (tmp_path / "sst2").mkdir()
    with pytest.raises(UserError, match="no test split"):
        load_test_texts(TASKS["sst2"], "embedded")
    with pytest.raises(UserError, match=r"no test\.<"):
        load_test_texts(TASKS["sst2"], str(tmp_path))
    for task in (TASKS["imdb"], custom_task(("text",), "label", ("a", "b"), False)):
        with pytest.raises(UserError, match=f"no task {task.name}; choose one of cola"):
            load_test_texts(task, str(tmp_path))
    assert CUSTOM not in FILES
