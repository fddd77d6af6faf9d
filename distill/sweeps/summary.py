"""Several seeds of one student on one task: mean, spread, and retention with an interval over seeds and examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distill.config.parsing import load_config
from distill.data.splits import resolve_task
from distill.evaluation.metrics import scored_values, split_suffixes
from distill.evaluation.predictions_file import answers_of, labels_of, read_predictions
from distill.evaluation.record import MODELS, Record, model_metrics, plain, read_record
from distill.evaluation.record_parts import Interval, SpeedupPoint
from distill.evaluation.significance import gain_over_seeds, retention_over_seeds, without_false_certainty
from distill.tasks import Task
from distill.utils.errors import UserError
from distill.utils.record_json import to_json


@dataclass(frozen=True)
class SeedRun:
    """What a finished run left: its numbers, and what every model said about every example."""

    folder: Path
    task: Task
    record: Record
    predicted: pd.DataFrame


@dataclass(frozen=True)
class SpeedRange(SpeedupPoint):
    """The speedup of a student over several seeds, from the lowest low to the highest high."""

    speedup: float | None
    low: float | None
    high: float | None
    over_softmax: bool = False
    """Over the same student with softmax attention, not over the teacher."""


def read_run(folder: Path | str) -> SeedRun:
    """Read a finished run folder.

    Raises:
        UserError: its record or predictions are missing or torn.
    """
    folder = Path(folder)
    record = read_record(folder / "record.json")
    predicted = read_predictions(folder / "predictions.parquet")
    config = load_config(folder / "config.yaml")
    return SeedRun(folder, resolve_task(config.task, config.data), record, predicted)


def summarise(runs: Sequence[SeedRun], *, resamples: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Return what ``summary.json`` says of runs that differ in their seed alone.

    Per metric, for teacher, student and baseline: ``mean``, ``sd`` (n - 1; null for one seed), ``min`` and ``max``
    over seeds; and for the retention ``ratio_of_averages`` and ``mean_of_ratios``, each with the interval of a
    hierarchical bootstrap, its spread over seeds, and ``by_seed`` with each seed's own paired-bootstrap interval; and
    ``gain``, how much better the student is than its labels-alone baseline, null without one. ``training_seconds`` is
    the mean of all stages; ``throughput`` and ``environment`` are the first seed's.

    Raises:
        UserError: the runs were scored on different examples.
    """
    first = runs[0]
    for run in runs[1:]:
        if not _examples(first).equals(_examples(run)):
            raise UserError(
                f"{first.folder} and {run.folder} were scored on different examples; "
                "seeds can be summarised only on the same ones (use one data.seed)"
            )
    record, student = first.record, first.record.models.student
    return {
        "task": first.task.name,
        **{"source": record.source, "data_name": record.data_name, "split": record.split},
        "num_examples": record.num_examples,
        "main_metric": record.main_metric,
        "seeds": [run.record.seed for run in runs],
        "resamples": resamples,
        "metrics": dict(_metrics(runs, resamples, seed)),
        **{"parameters": student.parameters, "layers": student.layers, "attention": _attention(runs)},
        "kl_to_teacher": _spread([run.record.kl_to_teacher for run in runs])["mean"],
        "speed": speed_over_seeds([run.record for run in runs]),
        "training_seconds": _spread([_training_seconds(run.record) for run in runs])["mean"],
        "throughput": None if record.throughput is None else to_json(record.throughput),
        "environment": plain(record.environment),
    }


def _attention(runs: Sequence[SeedRun]) -> str | None:
    """Return what all of them have; found for every layer, it may differ by seed."""
    found = {run.record.models.student.attention for run in runs}
    return next(iter(found)) if len(found) == 1 else "differs by seed"


def _training_seconds(record: Record) -> float | None:
    """Return how long all stages took together."""
    seconds = [stage.seconds for stage in record.stages if stage.seconds is not None]
    return sum(seconds) if seconds else None


def gain_over_student(
    runs: Sequence[SeedRun], reference: Sequence[SeedRun], *, resamples: int = 10_000, seed: int = 0
) -> dict[str, float] | None:
    """How much better a student is than another one of the same task in the main metric, seed by seed.

    Returns ``value``, ``low`` and ``high`` as :func:`distill.evaluation.significance.gain_over_seeds` does; None where
    the two have other seeds or were scored on other examples, so that nothing can be paired.
    """
    students = [*runs, *reference]
    if [run.record.seed for run in runs] != [run.record.seed for run in reference]:
        return None
    if any(not _examples(run).equals(_examples(students[0])) for run in students):
        return None
    task = runs[0].task
    rows = [run.predicted[run.predicted["split"] == task.validation_splits[0]] for run in students]
    truth = scored_values(task, task.main_metric, labels_of(rows[0]))
    scored = [scored_values(task, task.main_metric, answers_of(task, frame, "student")) for frame in rows]
    better, than = scored[: len(runs)], scored[len(runs) :]
    gain = gain_over_seeds(task.main_metric, truth, than, better, resamples=resamples, seed=seed)
    return to_json(_honest(gain, len(truth)))


def _honest(found: Interval, num_examples: int) -> Interval:
    """Take the ends from an interval that says nothing, as in the record of a single run."""
    return without_false_certainty({"": found}, num_examples)[""]


def _examples(run: SeedRun) -> pd.DataFrame:
    return run.predicted[["split", "id", "label"]]


def _metrics(runs: Sequence[SeedRun], resamples: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every metric of every split under the name it has in the record."""
    task = runs[0].task
    for split, suffix in split_suffixes(task).items():
        rows = [run.predicted[run.predicted["split"] == split] for run in runs]
        labels = labels_of(rows[0])
        answers = {
            role: [answers_of(task, frame, role) for frame in rows]
            for role in MODELS
            if all(f"{role}_logits" in frame for frame in rows)
        }
        for metric in task.metrics:
            name = metric + suffix
            truth = scored_values(task, metric, labels)
            scored = {role: [scored_values(task, metric, one) for one in given] for role, given in answers.items()}
            options = {"resamples": resamples, "seed": seed}
            kept = retention_over_seeds(metric, truth, scored["teacher"], scored["student"], **options)
            gain = None
            if "baseline" in scored:
                gain = gain_over_seeds(metric, truth, scored["baseline"], scored["student"], **options)
            yield (
                name,
                {
                    **{role: _spread([_score(run.record, role, name) for run in runs]) for role in MODELS},
                    "retention": {
                        **to_json(without_false_certainty(kept, len(labels))),
                        **_spread([run.record.retention[name].value for run in runs]),
                        "by_seed": [to_json(run.record.retention[name]) for run in runs],
                    },
                    "gain": to_json(_honest(gain, len(labels))) if gain else None,
                },
            )


def _score(record: Record, role: str, metric: str) -> float | None:
    return model_metrics(record, role).get(metric)


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Return mean, standard deviation and range over seeds; null where a seed has no value."""
    if any(value is None for value in values):
        return dict.fromkeys(("mean", "sd", "min", "max"))
    numbers = np.array(values, dtype=np.float64)
    sd = numbers.std(ddof=1) if len(numbers) > 1 else None
    return plain({"mean": numbers.mean(), "sd": sd, "min": numbers.min(), "max": numbers.max()})


def speed_over_seeds(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the median speedup of every measured point over the seeds, from the lowest low to the highest high.

    The seeds' students differ in their weights alone, so what differs in their speed is the machine: the range that
    covers all their intervals is what the machine allows to say.
    """
    points: dict[tuple[Any, ...], list[Interval]] = {}
    for record in records:
        for point in record.speed:
            if point.speedup is not None:
                place = (point.device, point.dtype, point.batch_size, point.length)
                points.setdefault(place, []).append(point.interval)
    return [
        {
            **dict(zip(("device", "dtype", "batch_size", "length"), place, strict=True)),
            "speedup": float(np.median([each.value for each in found if each.value is not None])),
            "low": min(each.low for each in found if each.low is not None),
            "high": max(each.high for each in found if each.high is not None),
        }
        for place, found in points.items()
    ]
