"""The best of several tries, by the mean of the metrics on held-out train after each one's best epoch."""

from types import SimpleNamespace

import pytest
import torch

from distill.config.schema import TrainingConfig
from distill.training.context import TrainingContext
from distill.training.progress import Progress
from distill.training.run_folder import RunFolder
from teachers.loading import Teacher
from teachers.tries import best_of_tries, names_of_tries, score_of


@pytest.fixture
def tried(make_bert, tokenizer, tmp_path, monkeypatch):
    """Return a function that makes tries of given scores, epoch by epoch; it returns what it was asked for."""
    accelerator = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None, print=lambda text: None)

    def tries(*scores):
        asked, teacher = [], Teacher(make_bert(seed=100), tokenizer, is_trained=False)

        def start_again(seed):
            asked.append(("start", seed))
            return make_bert(seed=seed)

        def finetune(model, seed, name):
            asked.append((name, seed))
            with torch.no_grad():
                model.classifier.bias.fill_(seed)
            held_out = [{"accuracy": score, "f1": score - 0.2} for score in scores[seed - 7]]
            return Progress(seconds=10.0, held_out=held_out)

        run = TrainingContext(accelerator, TrainingConfig(), 7)
        result = best_of_tries(run, len(scores), teacher, RunFolder(tmp_path), finetune, start_again)
        return teacher.model, result, asked

    return tries


def test_each_try_has_a_seed_and_a_start_of_its_own_and_the_best_is_kept(tried):
    model, result, asked = tried([0.6, 0.7], [0.5, 0.9, 0.4], [0.8])
    assert asked == [("teacher-1", 7), ("start", 8), ("teacher-2", 8), ("start", 9), ("teacher-3", 9)]
    assert model.classifier.bias.tolist() == [8, 8]
    assert score_of(result) == pytest.approx(0.8)  # the mean of 0.9 and 0.7
    assert result["seconds"] == 30.0


def test_of_equals_the_first_is_kept(tried):
    model, _, _ = tried([0.7], [0.7])
    assert model.classifier.bias.tolist() == [7, 7]


def test_one_try_is_the_teacher_itself(tried):
    model, result, asked = tried([0.6])
    assert asked == [("teacher", 7)]
    assert model.classifier.bias.tolist() == [7, 7]
    assert score_of(result) == pytest.approx(0.5)
    assert names_of_tries(1) == []
