"""Settings of labels: several for a text, weights of classes, smoothing; what cannot be is refused in one line."""

import argparse

import numpy as np
import pytest

from distill.config.data_options import add_data_options, data_options
from distill.config.parsing import load_config, parse_config, save_config
from distill.data.labels import class_weights
from distill.tasks import custom_task
from distill.utils.errors import UserError

CUSTOM = ("--task", "custom", "--data.dir", "x")
STAGES = "--stages=[{name: a, epochs: 1, learning_rate: 1e-3, losses: {logits: 1}}]"


def parse(*arguments):
    """Return what distill.py reads."""
    return parse_config([*arguments, STAGES])


def parse_options(*arguments):
    """Return what compare.py and export.py read."""
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    return data_options(parser.parse_args(arguments), "custom")


@pytest.mark.parametrize("values", [("[no, ' Yes']",), ("no", " Yes")])
def test_columns_of_zero_and_one_are_names_as_they_are_written(values, tmp_path):
    config = parse(*CUSTOM, "--data.multi_label", "true", "--data.label_column", *values)
    assert [name.strip() for name in config.data.label_column] == ["no", "Yes"]
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").data == config.data
    given = parse_options("--data.multi_label", "--data.label_column", *values)
    assert [name.strip() for name in given["label_column"]] == ["no", "Yes"]
    (tmp_path / "mine.yaml").write_text("task: custom\ndata: {dir: x, multi_label: true, label_column: [1, no]}\n")
    assert parse("--config", str(tmp_path / "mine.yaml")).data.label_column == ["1", "no"]


@pytest.mark.parametrize("name", ["no", "1", "a b"])
def test_one_column_stays_one(name):
    assert parse(*CUSTOM, "--data.label_column", name).data.label_column == name
    assert parse(*CUSTOM, f"--data.label_column={name}").data.label_column == name
    assert parse_options("--data.label_column", name) == {"label_column": name}


REFUSED = {
    "several labels of a published task": (("--task=sst2", "--data.multi_label=true"), "--data.multi_label false"),
    "columns of a published task": (("--task=sst2", "--data.text_columns=[text]"), "--data.text_columns null"),
    "several labels of a regression": (
        (*CUSTOM, "--data.multi_label=true", "--data.regression=true"),
        "data.multi_label is true: a regression has no labels",
    ),
    "several columns of one label": ((*CUSTOM, "--data.label_column", "a", "b"), "--data.multi_label true"),
    "weights of another name": (("--task=sst2", "--training.class_weights=balnced"), "did you mean 'balanced'"),
    "weights below 0": (("--task=sst2", "--training.class_weights=[1, -1]"), "a weight of 0 or more for every class"),
    "weights of nothing": (("--task=sst2", "--training.class_weights=[0, 0]"), "not all 0"),
    "no weights": (("--task=sst2", "--training.class_weights=[]"), "a weight of 0 or more for every class"),
    "all of it smoothed": (("--task=sst2", "--training.label_smoothing=1"), "a share from 0 to below 1"),
    "weights of scores": (
        ("--task=stsb", "--training.class_weights=balanced"),
        "a regression has no classes to weigh",
    ),
    "smoothed scores": (("--task=stsb", "--training.label_smoothing=0.1"), "a regression has no classes to smooth"),
    "own scores": (
        (*CUSTOM, "--data.regression=true", "--training.class_weights=[1, 2]"),
        "a regression has no classes to weigh",
    ),
    "weights of sets": (
        (*CUSTOM, "--data.multi_label=true", "--training.class_weights=balanced"),
        "data.multi_label has no classes to weigh",
    ),
    "smoothed sets": (
        (*CUSTOM, "--data.multi_label=true", "--training.label_smoothing=0.1"),
        "data.multi_label has no classes to smooth",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name):
    arguments, message = REFUSED[name]
    with pytest.raises(UserError) as refusal:
        parse(*arguments)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data.multi_label", "--data.regression"), "give one of the two"),
        (("--data.label_column", "a", "b"), "--data.multi_label true alone"),
    ],
)
def test_the_options_refuse_it_too(arguments, message):
    with pytest.raises(UserError, match=message):
        parse_options(*arguments)


THREE = custom_task(["text"], "label", ["a", "b", "c"], False)


def test_balanced_classes_count_alike_and_an_example_one_on_average():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = class_weights("balanced", THREE, labels)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert weights[labels].mean() == pytest.approx(1)
    assert class_weights(None, THREE, labels) is None
    assert class_weights([1, 2.5, 0], THREE, labels).tolist() == [1, 2.5, 0]
    assert np.isfinite(class_weights("balanced", THREE, np.array([0, 1]))).all()


def test_weights_of_other_classes_are_refused():
    with pytest.raises(
        UserError, match="class_weights has 2 numbers and task custom 3 classes: give one for each of a, b"
    ):
        class_weights([1.0, 2.0], THREE, np.array([0, 1, 2]))
