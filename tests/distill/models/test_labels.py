"""What a classifier's outputs mean: matched with the task by name, whoever loads it."""

from dataclasses import replace

import pytest
import torch
from helpers.tiny_bert import tiny_bert
from transformers import (
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import students
from distill.models.labels import settle_labels
from distill.models.loading import load_for_task
from distill.tasks import custom_task, get_task
from distill.utils.errors import UserError
from teachers.loading import load_teacher

SST2, MNLI, STSB, RTE = (get_task(name) for name in ("sst2", "mnli", "stsb", "rte"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
INPUTS = {"input_ids": torch.tensor([[2, 5, 7, 3], [2, 6, 7, 3]])}
OWN = custom_task(["text"], "label", ["billing", "refund", "other"], regression=False)


def named(names, **settings):
    return tiny_bert(vocab_size=len(WORDS), id2label=dict(enumerate(names)), **settings)


def logits(model):
    with torch.no_grad():
        return model.eval()(**INPUTS).logits


def save(model, folder):
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("task", "names", "order"),
    [
        (SST2, ["positive", "negative"], [1, 0]),
        (SST2, ["POSITIVE", "Negative"], [1, 0]),
        (RTE, ["not-entailment", "Entailment"], [1, 0]),
        (MNLI, ["contradiction", "entailment", "neutral"], [1, 2, 0]),
        (MNLI, ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], [2, 1, 0]),
        (OWN, ["other", "refund", "billing"], [2, 1, 0]),
        (get_task("imdb"), ["POSITIVE", "NEGATIVE"], [1, 0]),
        (MNLI, ["contra", "entail", "neutral"], [1, 2, 0]),
        (custom_task(["text"], "stars", ["1", "2", "3"], False), ["3", "1", "2"], [1, 2, 0]),
        (custom_task(["text"], "label", ["a", "A"], False), ["A", "a"], [1, 0]),
    ],
)
def test_outputs_are_put_into_the_order_of_the_task(task, names, order):
    model = named(names)
    before = logits(model)
    note = settle_labels(model, task, "teacher x")
    torch.testing.assert_close(logits(model), before[:, order], rtol=0, atol=0)
    assert model.config.id2label == dict(enumerate(task.label_names))
    assert model.config.label2id == {name: index for index, name in enumerate(task.label_names)}
    assert note is not None
    assert note.startswith("teacher x: ")
    assert f"{task.label_names[0]} = output {order[0]}" in note
    assert "\n" not in note
    assert settle_labels(model, task, "teacher x") is None, "put in order once and for all"


@pytest.mark.parametrize(
    "names",
    [["LABEL_0", "LABEL_1"], ["label 0", "label 1"], ["0", "1"], ["class_0", "class_1"], ["Negative", "POSITIVE"]],
)
def test_outputs_without_names_or_in_order_stay_and_get_the_names(names):
    model = named(names)
    before = logits(model)
    assert settle_labels(model, SST2, "teacher") is None
    assert torch.equal(logits(model), before)
    assert model.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.parametrize(
    "names", [["bad", "good"], ["LABEL_1", "LABEL_0"], ["negative", "neutral"], ["negative", "negative"]]
)
def test_other_names_are_refused_with_a_way_out(names):
    with pytest.raises(
        UserError, match=r"teacher x has the labels .*'negative', 'positive'; write .* id2label"
    ) as refused:
        settle_labels(named(names), SST2, "teacher x")
    assert "\n" not in str(refused.value)
    assert repr(names[1]) in str(refused.value)


def test_on_own_data_the_order_that_the_user_gives_is_the_way_out():
    names = ["A", "B", "C"]
    with pytest.raises(UserError, match=r"with --data\.label_names"):
        settle_labels(named(names), OWN, "teacher")
    model = named(names)
    before = logits(model)
    assert settle_labels(model, replace(OWN, order_is_given=True), "teacher") is None
    assert torch.equal(logits(model), before)
    assert list(model.config.id2label.values()) == list(OWN.label_names)


def test_where_the_data_has_bare_indices_the_names_of_the_model_stay():
    model = named(["negative", "positive"])
    before = logits(model)
    assert settle_labels(model, custom_task(["text"], "label", ["0", "1"], False), "teacher") is None
    assert torch.equal(logits(model), before)
    assert model.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "lstm", "performer"])
def test_every_kind_of_classifier_is_put_in_order(kind):
    torch.manual_seed(0)
    names = {"id2label": {0: "positive", 1: "negative"}, "initializer_range": 0.5, "vocab_size": 50}
    if kind == "roberta":
        config = RobertaConfig(
            **names, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
        model = RobertaForSequenceClassification(config)
    elif kind == "distilbert":
        model = DistilBertForSequenceClassification(
            DistilBertConfig(**names, dim=16, n_layers=1, n_heads=2, hidden_dim=8)
        )
    else:
        teacher = named(["positive", "negative"])
        model, _ = students.student_from_teacher(teacher, layer_map=[0], attention=kind, num_features=8)
    before = logits(model)
    assert (before[:, 0] - before[:, 1]).abs().max() > 1e-3
    settle_labels(model, SST2, "student")
    torch.testing.assert_close(logits(model), before[:, [1, 0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", [SST2, STSB])
@pytest.mark.parametrize("problem", ["multi_label_classification", "regression", "single_label_classification"])
def test_a_model_for_another_kind_of_task_is_refused(task, problem):
    model = tiny_bert(num_labels=task.num_labels)
    model.config.problem_type = problem
    if problem == task.problem_type:
        assert settle_labels(model, task, "teacher") is None
        return
    with pytest.raises(UserError, match=f"teacher was trained for {problem}"):
        settle_labels(model, task, "teacher")


SEVERAL = custom_task(["text"], "tags", ["billing", "refund", "other"], False, multi_label=True)


@pytest.mark.parametrize("problem", [None, "regression", "single_label_classification"])
def test_a_model_of_one_class_a_text_is_no_multi_label_one(problem):
    model = named(["billing", "refund", "other"], num_labels=3, problem_type=problem)
    with pytest.raises(UserError, match=r"is multi_label_classification; give a model of that kind \(problem_type"):
        settle_labels(model, SEVERAL, "teacher")


def test_a_multi_label_model_is_taken_with_its_labels_in_order():
    model = named(["other", "billing", "refund"], num_labels=3, problem_type="multi_label_classification")
    before = logits(model)
    assert "matched by name" in settle_labels(model, SEVERAL, "teacher")
    assert torch.equal(logits(model), before[:, [1, 2, 0]])
    with pytest.raises(UserError, match=r"or read the data as such with --data.multi_label true$"):
        settle_labels(model, OWN, "teacher")


def test_the_score_of_a_regression_has_a_name():
    model = tiny_bert(num_labels=1)
    settle_labels(model, STSB, "teacher")
    assert model.config.id2label == {0: "score"}
    assert model.config.problem_type == "regression"  # without it, transformers' pipeline answers with a sigmoid
    settle_labels(model, custom_task(["text"], "stars", None, True), "teacher")
    assert model.config.id2label == {0: "stars"}


def test_models_to_compare_are_put_in_order_and_say_so(tmp_path, capsys):
    model = named(["positive", "negative"])
    folder = save(model, tmp_path / "model")
    loaded = load_for_task(folder, "student", SST2).model
    torch.testing.assert_close(logits(loaded), logits(model)[:, [1, 0]])
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith(f"--student {folder}: its labels stand in another order")
    )


def test_a_teacher_is_put_in_order_and_says_so(tmp_path):
    model = named(["positive", "negative"])
    teacher = load_teacher(str(save(model, tmp_path)), SST2)
    torch.testing.assert_close(logits(teacher.model), logits(model)[:, [1, 0]])
    assert "positive = output 0" in (teacher.label_note or "")


def test_the_student_of_a_teacher_without_names_has_the_names_of_the_data(tmp_path):
    teacher = load_teacher(str(save(named(["LABEL_0", "LABEL_1", "LABEL_2"]), tmp_path)), OWN).model
    student, _ = students.student_from_teacher(teacher, layer_map=[0], attention="performer")
    assert student.config.id2label == {0: "billing", 1: "refund", 2: "other"}
