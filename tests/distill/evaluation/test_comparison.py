"""A whole comparison of tiny models: every key of the record, every null with a reason."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.tiny_bert import tiny_bert
from transformers import BertForSequenceClassification

from distill.benchmark.conditions import Models
from distill.config.schema import ComparisonConfig
from distill.data.batching import TokenizedExamples
from distill.evaluation import comparison
from distill.evaluation.metrics import compute_metrics
from distill.evaluation.predictions_file import write_predictions
from distill.evaluation.record import parse_record, record_text
from distill.evaluation.record_parts import StageEntry
from distill.export.alternatives import measure_alternatives
from distill.tasks import TASKS
from distill.utils.errors import UserError

QUICK = ComparisonConfig(batch_sizes=[1], lengths=[8, 40], seconds_per_point=0.05, resamples=200, memory=False)
STAGE = StageEntry(name="logits", seconds=1.0, examples_per_second=5.0, metrics={}, fidelity=None)


def make_bert(num_labels: int, num_layers: int, seed: int) -> BertForSequenceClassification:
    return tiny_bert(seed, num_labels=num_labels, num_hidden_layers=num_layers)


def make_examples(num_examples: int, num_labels: int, seed: int) -> TokenizedExamples:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(4, 20, num_examples)
    total = int(lengths.sum())
    labels = generator.integers(0, num_labels, num_examples)
    if num_labels == 1:
        labels = generator.uniform(0, 5, num_examples).astype(np.float32)
    return TokenizedExamples(
        token_ids=generator.integers(5, 50, total).astype(np.int32),
        token_type_ids=np.zeros(total, np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=labels,
        ids=np.arange(num_examples)[::-1].copy(),
    )


def run_comparison(name: str, *, baseline: bool = True, control: bool = True, settings=QUICK):
    task = TASKS[name]
    examples = {split: make_examples(60, task.num_labels, seed) for seed, split in enumerate(task.validation_splits)}
    models = Models(
        make_bert(task.num_labels, 2, 0),
        make_bert(task.num_labels, 1, 1),
        baseline=make_bert(task.num_labels, 1, 2) if baseline else None,
        control=make_bert(task.num_labels, 1, 3) if control else None,
    )
    setup = comparison.ComparisonSetup(task, examples, settings, "cpu", seed=7)
    record, predicted = comparison.compare_models(setup, models, measure_alternatives, stages=[STAGE])
    return task, examples, record, predicted


def test_record_of_a_classification_has_everything():
    task, examples, record, predicted = run_comparison("mrpc")
    assert parse_record(json.loads(record_text(record))) == record
    assert (record.task, record.split, record.num_examples, record.seed) == ("mrpc", "validation", 60, 7)
    assert record.main_metric == "f1"
    assert set(record.retention) == {"f1", "accuracy"}
    for role in ("teacher", "student", "baseline"):
        logits = np.stack(predicted[f"{role}_logits"])
        assert record.models[role].metrics == compute_metrics(task, logits, examples["validation"].labels)
        assert 0 <= record.models[role].calibration_error <= 1
        assert record.models[role].flops > 0
    for metric, entry in record.retention.items():
        scores = {role: record.models[role].metrics[metric] for role in ("teacher", "student")}
        assert entry.value == pytest.approx(scores["student"] / scores["teacher"])
        assert entry.low <= entry.value <= entry.high
    teacher, student = (np.stack(predicted[f"{role}_logits"]).argmax(1) for role in ("teacher", "student"))
    assert record.agreement == pytest.approx((teacher == student).mean())
    assert record.kl_to_teacher > 0
    assert 0 <= record.mcnemar.p <= 1
    assert [point.speed_only for point in record.speed] == [False, True]
    assert all(point.teacher_flops > point.student_flops for point in record.speed)
    assert record.noise.low <= record.noise.high
    assert record.throughput.low <= record.throughput.high
    assert record.throughput.num_examples > 0
    assert [entry.name for entry in record.alternatives] == [
        "teacher in ONNX Runtime fp32",
        "teacher in ONNX Runtime int8",
    ]
    assert all(entry.metrics and entry.speed for entry in record.alternatives)
    assert record.median_length == 16
    gained = (record.models[role].metrics["f1"] for role in ("student", "baseline"))
    assert record.gain["f1"].value == pytest.approx(np.subtract(*gained))
    assert set(record.never_answered) == {"teacher", "student", "baseline"}
    assert record.stages[0].name == "logits"
    assert record.environment["device"] == "cpu"


def test_record_of_a_regression():
    _, _, record, predicted = run_comparison("klue_sts", baseline=False, control=False)
    assert record.models.baseline.metrics is None
    assert record.models.baseline.reason
    assert record.mcnemar is None
    assert set(record.retention) == {"pearson", "f1"}
    assert set(record.williams) == {"pearson"}
    assert 0 <= record.williams["pearson"].p <= 1
    for entry in record.retention.values():
        assert entry.value is not None or entry.reason
    assert list(predicted.columns) == ["id", "split", "label", "teacher_logits", "student_logits"]
    correlation = np.corrcoef(np.stack(predicted["teacher_logits"])[:, 0], np.stack(predicted["student_logits"])[:, 0])
    assert record.agreement == pytest.approx(correlation[0, 1])
    # The student is itself a softmax model: it is its own control, and no crossover is looked for.
    assert record.speed[0].attention_speedup is not None
    assert (record.crossover_length, record.crossover_reason) == (None, "the student's attention is softmax")


def test_both_splits_of_mnli():
    _, _, record, predicted = run_comparison("mnli", settings=replace(QUICK, lengths=[]))
    assert record.split == "validation_matched"
    assert list(record.models.student.metrics) == ["accuracy", "accuracy_mismatched"]
    assert list(record.retention) == ["accuracy", "accuracy_mismatched"]
    for metric, entry in record.retention.items():
        scores = {role: record.models[role].metrics[metric] for role in ("teacher", "student")}
        assert entry.value == pytest.approx(scores["student"] / scores["teacher"])
    assert predicted.groupby("split").size().to_dict() == {"validation_matched": 60, "validation_mismatched": 60}
    assert record.speed == ()
    assert record.crossover_reason == "speed was not measured"


def test_predictions_go_to_parquet_and_back(tmp_path):
    _, examples, _, predicted = run_comparison("sst2", settings=replace(QUICK, lengths=[]))
    write_predictions(predicted, tmp_path / "predictions.parquet")
    read = pd.read_parquet(tmp_path / "predictions.parquet")
    assert read["id"].tolist() == examples["validation"].ids.tolist()
    assert read["label"].tolist() == examples["validation"].labels.tolist()
    np.testing.assert_array_equal(np.stack(read["baseline_logits"]), np.stack(predicted["baseline_logits"]))
    assert list(tmp_path.iterdir()) == [tmp_path / "predictions.parquet"]


def test_same_seed_same_quality():
    first, second = (run_comparison("sst2", settings=replace(QUICK, lengths=[]))[2] for _ in range(2))
    for key in ("retention", "models", "agreement", "mcnemar", "kl_to_teacher"):
        assert getattr(first, key) == getattr(second, key)


def test_checkpoints_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="the student has 3 labels, task sst2 has 2"):
        comparison.check_comparable(TASKS["sst2"], {"teacher": make_bert(2, 1, 0), "student": make_bert(3, 1, 0)})
    other = make_bert(2, 1, 0)
    other.config.vocab_size = 60
    with pytest.raises(UserError, match=r"vocabularies differ \(teacher 50, student 60"):
        comparison.check_comparable(TASKS["sst2"], {"teacher": make_bert(2, 1, 0), "student": other})
