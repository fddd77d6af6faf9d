"""Several seeds of one student: mean, spread, both definitions of retention, speed over seeds, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.records import sample_json, typed

from distill.evaluation.predictions_file import read_predictions, write_predictions
from distill.evaluation.significance import retention
from distill.sweeps.summary import SeedRun, gain_over_student, speed_over_seeds, summarise
from distill.tasks import TASKS
from distill.utils.errors import UserError
from distill.utils.record_json import to_json


def seed_run(seed: int, student_rate: float, ids: int = 0, **changes) -> SeedRun:
    """Return a run on 100 examples whose teacher is right on 90 and whose student on a share of them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(100) % 2
    right = {"teacher": np.arange(100) < 90, "student": generator.random(100) < student_rate}
    columns = {
        f"{role}_logits": list(np.eye(2, dtype=np.float32)[np.where(rows, labels, 1 - labels)])
        for role, rows in right.items()
    }
    predicted = pd.DataFrame({"id": np.arange(100) + ids, "split": "validation", "label": labels, **columns})
    record = sample_json() | {"seed": seed, **changes}
    for role, rows in right.items():
        record["models"][role]["metrics"] = {"accuracy": float(rows.mean())}
    answers = [np.stack(columns[f"{role}_logits"]).argmax(1) for role in ("teacher", "student")]
    record["retention"] = {"accuracy": to_json(retention("accuracy", labels, *answers, resamples=200))}
    return SeedRun(Path(f"seed{seed}"), TASKS["sst2"], typed(record), predicted)


def test_mean_spread_and_both_retentions():
    runs = [seed_run(seed, rate) for seed, rate in ((1, 0.7), (2, 0.8), (3, 0.85))]
    summary = summarise(runs, resamples=500)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    scores = np.array([run.record.models.student.metrics["accuracy"] for run in runs])
    values = summary["metrics"]["accuracy"]
    assert values["student"] == {
        "mean": pytest.approx(scores.mean()),
        "sd": pytest.approx(np.std(scores, ddof=1)),
        "min": scores.min(),
        "max": scores.max(),
    }
    kept = values["retention"]
    assert kept["mean"] == pytest.approx((scores / 0.9).mean())
    assert kept["mean_of_ratios"]["value"] == pytest.approx(kept["mean"])
    assert kept["ratio_of_averages"]["value"] == pytest.approx(scores.mean() / 0.9)
    for name in ("mean_of_ratios", "ratio_of_averages"):
        assert kept[name]["low"] < kept["min"]
        assert kept[name]["high"] > kept["max"]
    assert kept["by_seed"] == [to_json(run.record.retention["accuracy"]) for run in runs]
    assert (summary["seeds"], summary["split"], summary["main_metric"]) == ([1, 2, 3], "validation", "accuracy")


def test_one_seed_has_no_spread():
    values = summarise([seed_run(1, 0.8)], resamples=200)["metrics"]["accuracy"]
    assert values["student"]["sd"] is None
    expected = to_json(seed_run(1, 0.8).record.retention["accuracy"])
    assert values["retention"]["mean_of_ratios"] == expected  # the plain bootstrap of the record, to the last digit


def test_no_baseline_is_null():
    models = sample_json()["models"]
    run = seed_run(1, 0.8, models=models | {"baseline": models["baseline"] | {"metrics": None}})
    assert summarise([run], resamples=50)["metrics"]["accuracy"]["baseline"]["mean"] is None


def test_divergence_is_the_mean_over_seeds_and_null_for_scores():
    runs = [seed_run(seed, 0.8, kl_to_teacher=value) for seed, value in ((1, 0.1), (2, 0.3))]
    assert summarise(runs, resamples=50)["kl_to_teacher"] == pytest.approx(0.2)
    runs = [replace(run, record=replace(run.record, kl_to_teacher=None)) for run in runs]  # as that of a regression
    assert summarise(runs, resamples=50)["kl_to_teacher"] is None


def test_gain_over_labels_alone():
    """Student and baseline see the same drawn examples: against itself nothing is gained in any of them."""
    run = seed_run(1, 0.8)
    assert summarise([run], resamples=50)["metrics"]["accuracy"]["gain"] is None
    run.predicted["baseline_logits"] = run.predicted["student_logits"]
    nothing = summarise([run], resamples=50)["metrics"]["accuracy"]["gain"]
    assert nothing == {"value": 0.0, "low": 0.0, "high": 0.0}
    wrong = [1 - one for one in np.eye(2, dtype=np.float32)[run.predicted["label"]]]
    run.predicted["baseline_logits"] = wrong
    gain = summarise([run], resamples=500)["metrics"]["accuracy"]["gain"]
    student = run.record.models.student.metrics["accuracy"]
    assert gain["value"] == pytest.approx(student)
    assert student - 0.1 < gain["low"] < student < gain["high"] < student + 0.1  # 1.96 sd of 100 examples is 0.08


def test_gain_over_another_student():
    """Examples are drawn for both at once: what differs in no example has an interval of nothing."""
    runs = [seed_run(seed, 0.8) for seed in (1, 2)]
    assert gain_over_student(runs, runs, resamples=50) == {"value": 0.0, "low": 0.0, "high": 0.0}
    better = [seed_run(seed, 1.0) for seed in (1, 2)]
    found = gain_over_student(better, runs, resamples=500)
    shares = [1 - run.record.models.student.metrics["accuracy"] for run in runs]
    assert found["value"] == pytest.approx(np.mean(shares))
    assert 0 < found["low"] < found["value"] < found["high"]
    swapped = gain_over_student(runs, better, resamples=500)
    assert swapped["value"] == pytest.approx(-found["value"])


def test_students_that_cannot_be_paired_have_no_gain():
    assert gain_over_student([seed_run(1, 0.8)], [seed_run(2, 0.8)]) is None
    assert gain_over_student([seed_run(1, 0.8)], [seed_run(1, 0.8, ids=1)]) is None


def test_other_examples_are_refused():
    with pytest.raises(UserError, match="different examples"):
        summarise([seed_run(1, 0.8), seed_run(2, 0.8, ids=1)])


def test_speed_is_the_median_and_what_all_intervals_cover():
    records = [sample_json() for _ in range(3)]
    for record, speedup in zip(records, (2.0, 2.4, 2.1), strict=True):
        record["speed"] = [record["speed"][0] | {"speedup": speedup, "low": speedup - 0.1, "high": speedup + 0.1}]
    records[1]["speed"].append(records[1]["speed"][0] | {"length": 512, "speedup": None})
    (point,) = speed_over_seeds([typed(record) for record in records])
    assert (point["speedup"], point["low"], point["high"]) == (2.1, 1.9, 2.5)


def test_predictions_that_cannot_be_read(tmp_path):
    path = tmp_path / "predictions.parquet"
    with pytest.raises(UserError, match="does not exist"):
        read_predictions(path)
    write_predictions(seed_run(1, 0.8).predicted, path)
    assert len(read_predictions(path)) == 100
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(path)
    write_predictions(seed_run(1, 0.8).predicted.drop(columns="label"), path)
    with pytest.raises(UserError, match="no column 'label'"):
        read_predictions(path)


def few(run, count):
    """Return a run on its first examples alone, all of which the teacher and the student get right."""
    predicted = run.predicted[:count].copy()
    right = list(np.eye(2, dtype=np.float32)[predicted["label"]])
    for role in ("teacher", "student", "baseline"):
        predicted[f"{role}_logits"] = right
    return replace(run, predicted=predicted)


@pytest.mark.parametrize("count", [20, 100])
def test_intervals_without_a_width_say_nothing_of_few_examples(count):
    """As in the record of a single run."""
    runs = [few(seed_run(seed, 1.0), count) for seed in (1, 2)]
    values = summarise(runs, resamples=50)["metrics"]["accuracy"]
    found = [values["retention"]["mean_of_ratios"], values["retention"]["ratio_of_averages"], values["gain"]]
    found.append(gain_over_student(runs, runs, resamples=50))
    for value, each in zip((1.0, 1.0, 0.0, 0.0), found, strict=True):
        if count < 100:
            reason = f"no resample differs, and {count} examples are too few for that to say anything"
            assert each == {"value": value, "low": None, "high": None, "reason": reason}
        else:
            assert each == {"value": value, "low": value, "high": value}
