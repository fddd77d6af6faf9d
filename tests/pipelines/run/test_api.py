"""The way in from Python: the README's lines run as they stand there, and mistakes are raised."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from helpers.tiny_teachers import tiny_teacher

from distill.data.tokenization import train_tokenizer
from distill.models.loading import Classifier
from pipelines.run.api import UserError, distill, load_config, load_student, predict, read_record

ROOT = Path(__file__).resolve().parents[3]
TEXTS = ["a film of rare warmth", "not a good film", "dull, from the first scene to the last one"]


def readme_lines():
    section = (ROOT / "README.md").read_text().partition("## From Python\n")[2]
    return re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1]


def test_the_lines_of_the_readme_run(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text(tiny.config.read_text())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(readme_lines(), "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert names["config"].student.num_layers == 1
    assert names["record"] == read_record(tmp_path / "runs" / "from_python" / "record.json")
    assert printed[-3] == str(names["record"].retention["accuracy"])
    for line in printed[-2:]:
        assert re.fullmatch(r"(positive|negative) 0\.\d+ \{'negative': 0\.\d+, 'positive': 0\.\d+\}", line)
    assert not AcceleratorState._shared_state, "the next run may have another precision"

    distill(names["config"])
    assert "is finished" in capsys.readouterr().out
    other = replace(names["config"], seed=7)
    with pytest.raises(UserError, match=r"belongs to another configuration \(different: seed\)"):
        distill(other)
    assert predict(load_student(tmp_path / "runs" / "from_python" / "student"), TEXTS[:2]) == predict(
        names["student"], TEXTS[:2]
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"student.layers": 2}, r"unknown key 'student.layers'.*did you mean 'student\.num_layers'"),
        ({"student.num_layers": "two"}, r"student\.num_layers"),
        ({"student.attention": "perfomer"}, r"did you mean 'performer'"),
        ({"student.exact_up_to": 16, "student.attention": "fnet"}, r"student\.exact_up_to is 16: fnet"),
    ],
)
def test_a_wrong_override_is_one_line(tiny, overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(tiny.config, overrides)


def test_overrides_may_be_any_values_of_yaml(tiny, tmp_path):
    given = {
        "data.max_train_examples": None,
        "student.softmax_layers": [-1],
        "training.mixed_precision": "no",
        "comparison.memory": True,
        "teacher.learning_rate": 3e-5,
        "run_dir": tmp_path,
    }
    config = load_config(tiny.config, given)
    assert (config.data.max_train_examples, config.student.softmax_layers) == (None, [-1])
    assert (config.training.mixed_precision, config.comparison.memory) == ("no", True)
    assert (config.teacher.learning_rate, config.run_dir) == (3e-5, str(tmp_path))


@pytest.fixture
def classifier(make_bert):
    """Return a function that builds a small classifier whose tokenizer knows `TEXTS`."""

    def make(**settings):
        tokenizer = train_tokenizer(TEXTS, 60)
        return Classifier("student", make_bert(vocab_size=len(tokenizer), **settings), tokenizer)

    return make


def test_predictions_keep_the_order_whatever_the_batch(classifier):
    small = classifier()
    answers = predict(small, TEXTS)
    singly = [predict(small, [text])[0] for text in TEXTS]
    for answer, alone in zip(answers, singly, strict=True):
        assert answer.score == pytest.approx(alone.score, abs=1e-6)
        assert answer.score == max(answer.probabilities.values()) == answer.probabilities[answer.label]
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert len({answer.score for answer in answers}) == len(TEXTS)
    assert predict(small, []) == []
    pairs = predict(small, [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0])])
    assert pairs[0].score != pytest.approx(pairs[1].score, abs=1e-6)


def test_a_regression_gives_a_number_and_several_labels_need_not_add_up(classifier):
    number = predict(classifier(num_labels=1), TEXTS)[0]
    assert (number.label, number.probabilities) == (None, {})
    several = classifier()
    several.model.config.problem_type = "multi_label_classification"
    probabilities = predict(several, TEXTS)[0].probabilities
    assert sum(probabilities.values()) != pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("family", ["xlnet", "deberta-v2", "modernbert"])
def test_models_of_any_positions_read_any_text(family, tmp_path):
    """XLNet has no limit and fills up on the left; the others have positions, and what is longer is cut."""
    long = " ".join(TEXTS * 40)
    loaded = load_student(tiny_teacher(family, TEXTS, tmp_path / family))
    answers, texts = predict(loaded, [*TEXTS, long]), [*TEXTS, long]
    for answer, text in zip(answers, texts, strict=True):
        assert answer.score == pytest.approx(predict(loaded, [text])[0].score, abs=1e-5)
    ends = predict(loaded, [f"{long} {end}" for end in ("good", "dull")])
    assert (ends[0] != ends[1]) == (family == "xlnet")  # nothing is cut where nothing has to be


@pytest.mark.parametrize(
    ("texts", "message"),
    [("a text", "a single string; give a list"), (["a text", ("a", "pair")], "of different kinds")],
)
def test_texts_of_a_wrong_form_are_refused(classifier, texts, message):
    with pytest.raises(UserError, match=message):
        predict(classifier(), texts)


def test_a_folder_without_a_student_is_named(tmp_path):
    with pytest.raises(UserError, match=r"is no checkpoint: it has no config\.json"):
        load_student(tmp_path)


def test_nothing_but_tensors_is_unpickled_while_it_runs_and_what_was_set_stays(tiny, monkeypatch):
    name, seen = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", []
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pipelines.run.api.prepare_run", lambda *_: seen.append(os.environ.get(name)))
    distill(load_config(tiny.config))
    assert (seen, os.environ.get(name)) == (["1"], None)
