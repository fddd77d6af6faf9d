"""What both models answered, per class or against the true scores: counts, table, pictures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.records import sample_json, typed

from distill.reporting.answer_plots import confusion_matrices, f1_by_label, scores_against_labels
from distill.reporting.answers import Answers, answer_cells, confusion_counts
from distill.reporting.report import write_report
from distill.tasks import TASKS, custom_task

LABELS = [0, 0, 0, 1]
TEACHER = [0, 0, 1, 1]
STUDENT = [0, 1, 1, 1]


@pytest.fixture
def record():
    return sample_json()


def make_answers(task, labels, teacher, student, split=None):
    size = task.num_labels

    def logits(given):
        return [[float(value)] for value in given] if task.is_regression else list(np.eye(size)[np.array(given)])

    split = split or task.validation_splits[0]
    frame = pd.DataFrame({"id": range(len(labels)), "split": split, "label": labels})
    return Answers(task, frame.assign(teacher_logits=logits(teacher), student_logits=logits(student)))


@pytest.fixture
def answers():
    return make_answers(TASKS["sst2"], LABELS, TEACHER, STUDENT)


def test_counts_and_shares(answers):
    assert confusion_counts(answers, "teacher").tolist() == [[2, 1], [0, 1]]
    assert confusion_counts(answers, "student").tolist() == [[1, 2], [0, 1]]
    cells = answer_cells(answers)
    assert cells.headers == ("class", "examples", "recall, teacher", "recall, student", "F1, teacher", "F1, student")
    assert cells.rows == (
        ("negative", "3", "66.7 %", "33.3 %", "80.0 %", "50.0 %"),
        ("positive", "1", "100.0 %", "100.0 %", "66.7 %", "50.0 %"),
    )


def test_labels_one_by_one(record):
    task = custom_task(("text",), "tags", ("a", "b", "c"), False, multi_label=True)
    labels = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    frame = pd.DataFrame({"id": range(4), "split": "validation", "label": labels})
    logits = {"teacher": [[9, -9, -9], [9, 9, -9], [-9, 9, -9], [-9, -9, -9]], "student": [[0, -9, -9]] * 4}
    for role, given in logits.items():
        frame = frame.assign(**{f"{role}_logits": [np.array(each, float) for each in given]})
    answers = Answers(task, frame.assign(teacher_threshold=0.5, student_threshold=0.4))
    cells = answer_cells(answers)
    assert cells.title == "Answers per label"
    assert cells.headers[:2] == ("label", "examples")
    assert cells.rows == (
        ("a", "2", "100.0 %", "100.0 %", "100.0 %", "66.7 %"),
        ("b", "2", "100.0 %", "0.0 %", "100.0 %", "0.0 %"),
        ("c", "0", "n/a", "n/a", "n/a", "n/a"),
    )
    assert confusion_matrices(typed(record), answers) is None
    axes = f1_by_label(typed(record), answers).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a (2)", "b (2)", "c (0)"]
    assert [round(bar.get_width(), 3) for bar in axes.patches] == [1.0, 1.0, 0.0, 0.667, 0.0, 0.0]
    assert f1_by_label(typed(record), make_answers(TASKS["sst2"], LABELS, TEACHER, STUDENT)) is None


def test_only_the_split_of_the_main_metric_counts():
    task = TASKS["mnli"]
    first, second = (
        make_answers(task, [0, 1, 2], given, given, split)
        for given, split in zip(([0, 1, 2], [2, 2, 2]), task.validation_splits, strict=True)
    )
    both = Answers(task, pd.concat([first.predicted, second.predicted], ignore_index=True))
    assert confusion_counts(both, "student").tolist() == np.eye(3, dtype=int).tolist()
    assert answer_cells(both).title == "Answers per class (validation_matched)"


def test_of_many_classes_those_that_lose_most():
    names = [f"class {index}" for index in range(40)]
    task = custom_task(("text",), "label", names, regression=False)
    labels = list(range(40))
    wrong = [*labels[:38], 0, 0]
    many = make_answers(task, labels, labels, wrong)
    cells = answer_cells(many)
    assert len(cells.rows) == 12
    assert {row[0] for row in cells.rows[:3]} == {"class 0", "class 38", "class 39"}
    assert cells.notes == ("of 40 classes, the 12 whose F1 falls most from teacher to student",)
    assert confusion_matrices(typed(sample_json()), many) is None


def test_the_matrix_shows_counts_and_shares_of_both(record, answers):
    figure = confusion_matrices(typed(record), answers)
    teacher, student = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert teacher == ["2\n67 %", "1\n33 %", "0\n0 %", "1\n100 %"]
    assert student == ["1\n33 %", "2\n67 %", "0\n0 %", "1\n100 %"]
    assert figure.axes[0].get_title().startswith("teacher, accuracy ")
    assert scores_against_labels(typed(record), answers) is None


def test_class_names_that_the_font_cannot_draw_are_numbered(record):
    task = replace(TASKS["sst2"], label_names=("\N{HANGUL SYLLABLE GA}", "$a$b"))
    figure = confusion_matrices(typed(record), make_answers(task, LABELS, TEACHER, STUDENT))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["class 1", "$a$b"]


def test_scores_are_drawn_and_have_no_table(record):
    task = TASKS["stsb"]
    answers = make_answers(task, [0.0, 2.5, 5.0], [0.1, 2.0, 4.9], [1.0, 1.0, 4.0])
    assert answer_cells(answers).rows == ()
    figure = scores_against_labels(replace(typed(record), main_metric="pearson"), answers)
    points = [axes.collections[0].get_offsets().tolist() for axes in figure.axes]
    np.testing.assert_allclose(points[1], [[0.0, 1.0], [2.5, 1.0], [5.0, 4.0]])
    low, high = figure.axes[0].get_xlim()
    assert low < 0.0
    assert high > 5.0
    assert confusion_matrices(typed(record), answers) is None


def test_they_stand_right_below_the_verdict(record, answers, tmp_path):
    page = write_report(typed(record), tmp_path, answers=answers).read_text()
    verdict, matrix, models = (
        page.index(part) for part in ('class="verdict"', "Answers per class", "Teacher against")
    )
    assert verdict < matrix < models
    assert (tmp_path / "plots" / "confusion.png").is_file()
    assert "plots/confusion.png" in (tmp_path / "report.md").read_text()
