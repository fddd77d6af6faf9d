"""pipelines/bench_training.py: three comparisons, each of ways that really train."""

import json

import numpy as np
import pytest
import torch
from helpers.families import tiny_tokenizer
from helpers.in_process import call
from torch import nn

from distill.benchmark import rivals
from distill.data.batching import collate
from distill.evaluation.predict import predict_logits
from distill.training import dropout
from pipelines import bench_training


def test_ways_are_timed_against_ours_and_written(tiny, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench_training, "SECONDS", 0.1)
    monkeypatch.setattr(rivals, "has_textbrewer", lambda: False)
    dropped = []
    monkeypatch.setattr(dropout, "set_dropout", lambda model, active: dropped.append(active))
    assert call(monkeypatch, bench_training.main, "--config", tiny.config, "--run_dir", tmp_path) == 0
    record = json.loads((tmp_path / "bench_training.json").read_text())
    found = {name: [row["way"] for row in record[name]] for name in ("layers", "decisions", "fine-tuning")}
    assert found == {
        "layers": ["ours", "random order, cached", "random order", "padded"],
        "decisions": ["ours", "ours, live"],
        "fine-tuning": ["ours", "Trainer"],
    }
    for name in found:
        rate = {row["way"]: row["examples_per_second"] for row in record[name]}
        for row in record[name]:
            assert row["ours_is_faster_by"] == pytest.approx(rate["ours"] / rate[row["way"]], rel=0.5)
    assert "Trainer" in capsys.readouterr().out
    assert dropped == [False] * 6 + [True]  # the Trainer's model drops units, so ours has to


def test_a_rate_counts_every_example_of_a_round():
    seconds = np.full((6, 2), 0.5)
    ours, other = bench_training.compare({"ours": seconds, "other": 2 * seconds}, batch_size=8)
    assert ours["examples_per_second"] == bench_training.STEPS_PER_ROUND * 8 / 0.5
    assert other["ours_is_faster_by"] == pytest.approx(2)


def test_the_trainer_learns_what_its_steps_are_for(make_bert, make_examples, monkeypatch):
    monkeypatch.setattr(rivals, "RATE", 1e-3)
    model, examples = make_bert(), make_examples(20)

    def loss() -> float:
        logits = torch.from_numpy(predict_logits(model, examples, device="cpu"))
        return float(nn.functional.cross_entropy(logits, torch.from_numpy(examples.labels)))

    before = loss()
    take_step = rivals.trainer_steps(model, tiny_tokenizer("bert", ["a film"]), examples, 10, bf16=False)
    for _ in range(20):
        take_step()
    assert loss() < before - 0.05


def test_textbrewer_matches_what_it_is_told_to(make_bert, make_examples, monkeypatch):
    pytest.importorskip("textbrewer", reason="a rival that is no dependency: pip install textbrewer")
    monkeypatch.setattr(rivals, "RATE", 1e-3)
    teacher, student, examples = make_bert(num_layers=3, seed=1), make_bert(), make_examples(20)
    inputs, _ = collate(examples, np.arange(8))

    def distance() -> float:
        with torch.no_grad():
            states = (
                model.eval()(**inputs, output_hidden_states=True).hidden_states[-1] for model in (teacher, student)
            )
            return float(nn.functional.mse_loss(*states))

    before = distance()
    take_step = rivals.textbrewer_steps(teacher, student, [(0, 0), (1, 2)], 2.0, examples, 8, bf16=False)
    for _ in range(20):
        take_step()
    assert distance() < 0.9 * before


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("--student.attention", "fit"), "student.attention is fit: what it finds is not known here"),
        (("--stages", "auto"), "stages are auto: give a configuration with stages"),
    ],
)
def test_what_a_run_would_find_first_is_refused(tiny, monkeypatch, capsys, tmp_path, keys, words):
    assert call(monkeypatch, bench_training.main, "--config", tiny.config, "--run_dir", tmp_path, *keys) == 2
    assert words in capsys.readouterr().err
