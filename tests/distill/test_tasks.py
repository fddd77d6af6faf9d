import subprocess
import sys

import pytest

from distill.tasks import TASKS, custom_task, get_task, task_names
from distill.utils.errors import UserError


def test_names_are_the_published_ones():
    names = "cola sst2 mrpc stsb qqp mnli qnli rte wnli imdb klue_tc klue_nli klue_sts text custom"
    assert sorted(task_names()) == sorted(names.split())


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("cola", ("matthews_correlation",)),
        ("sst2", ("accuracy",)),
        ("mrpc", ("f1", "accuracy")),
        ("qqp", ("f1", "accuracy")),
        ("stsb", ("pearson", "spearmanr")),
        ("mnli", ("accuracy",)),
        ("klue_tc", ("macro_f1",)),
        ("klue_sts", ("pearson", "f1")),
    ],
)
def test_official_metrics(name, metrics):
    assert TASKS[name].metrics == metrics
    assert TASKS[name].main_metric == metrics[0]


def test_label_order_of_the_official_sets():
    assert TASKS["mnli"].label_names == ("entailment", "neutral", "contradiction")
    assert TASKS["rte"].label_names == ("entailment", "not_entailment")
    assert TASKS["wnli"].label_names == ("not_entailment", "entailment")


def test_regression_has_one_output():
    assert TASKS["stsb"].num_labels == 1
    assert TASKS["stsb"].is_regression
    assert TASKS["klue_tc"].num_labels == 7
    assert not TASKS["klue_tc"].is_regression


def test_unknown_task_names_choices_and_nearest():
    with pytest.raises(UserError, match=r"'ssst2'.*cola.*did you mean 'sst2'"):
        get_task("ssst2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b", "c"], "label", ["x", "y"], False), r"data\.text_columns"),
        ((["a"], "a", ["x", "y"], False), r"data\.label_column"),
        ((["a"], "label", ["x"], False), "two or more"),
        ((["a"], "label", ["x", "x"], False), "two or more different"),
        ((["a"], "label", ["x", "y"], True), "regression"),
    ],
)
def test_impossible_custom_tasks(arguments, message):
    with pytest.raises(UserError, match=message):
        custom_task(*arguments)


@pytest.mark.parametrize(
    ("names", "metric", "expected"),
    [
        (["x", "y"], None, ("accuracy", "macro_f1")),
        (["x", "y"], "macro_f1", ("macro_f1", "accuracy")),
        (["x", "y"], "f1", ("f1", "accuracy", "macro_f1")),
        (["x", "y", "z"], "matthews_correlation", ("matthews_correlation", "accuracy", "macro_f1")),
        (None, "spearmanr", ("spearmanr", "pearson")),
    ],
)
def test_the_main_metric_of_a_custom_task(names, metric, expected):
    assert custom_task(["a"], "label", names, names is None, metric).metrics == expected


@pytest.mark.parametrize(
    ("names", "metric", "message"),
    [
        (["x", "y", "z"], "f1", "f1 is of two classes, and there are 3; give macro_f1"),
        (["x", "y"], "pearson", r"data\.main_metric is 'pearson'"),
        (None, "accuracy", "pearson, spearmanr"),
        (["x", "y"], "acuracy", "did you mean 'accuracy'"),
    ],
)
def test_a_main_metric_that_a_task_cannot_have(names, metric, message):
    with pytest.raises(UserError, match=message):
        custom_task(["a"], "label", names, names is None, metric)


def test_names_cost_no_heavy_import():
    code = (
        "import sys, distill.tasks; print([m for m in ('torch', 'pandas', 'datasets', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
