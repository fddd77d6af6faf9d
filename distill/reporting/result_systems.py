"""The tables of the page on whole systems: mechanisms from scratch on KLUE, and on long texts, beside others' figures.

What was not run has no cell, so that the page renders from the records that there are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.reporting.result_records import (
    METRIC_NAMES,
    Records,
    interval,
    kept,
    markdown_table,
    measured_on,
    percent,
)

KLUE = {"klue_nli": ("NLI", ("accuracy",)), "klue_sts": ("STS", ("pearson", "f1")), "klue_tc": ("TC", ("macro_f1",))}
"""Task to its name and metrics; topic classification shows once it was run."""
MECHANISMS = (
    *("softmax", "performer", "rfa", "lsra", "aft", "luna", "fastformer", "scatterbrain", "abc", "scaling"),
    *("memory_efficient", "knn", "hedgehog"),
)
LONG = {"imdb": "IMDB", "sst2": "SST-2", "qnli": "QNLI", "qqp": "QQP"}
LONG_MECHANISMS = ("softmax", "longformer", "bigbird", "performer", "linformer", "abc")
LONG_STUDENTS = (*LONG_MECHANISMS, "lstm")
MISSING = "-"
Cells = dict[str, dict[str, Any]]


def klue_systems(records: Records) -> list[str]:
    """Every mechanism on KLUE, from scratch and distilled from the softmax one, in every metric of every task."""
    cells: Cells = {}
    for name in ("summary", "seeds_nli", "seeds_sts"):  # of three seeds where there are these, of one otherwise
        cells |= records.find(f"klue/{name}")
    columns: list[tuple[str, list[str]]] = []
    one_answer, floor = records.json("published/systems")["one_answer"], list[str]()
    for task, (name, metrics) in KLUE.items():
        if task != "klue_tc" or any(cell.startswith(task) for cell in cells):
            for metric in metrics:
                for role, how in (("baseline", "from scratch"), ("student", "distilled")):
                    scores = [_mean(cells.get(f"{task}-{each}"), metric, role) for each in MECHANISMS]
                    columns.append((f"{name} {_metric(metric)}, {how}", _best_bold(scores)))
                    floor.append(percent(one_answer.get(task, {}).get(metric)))
    seeds = [_seeds(cells, [f"{task}-{each}" for task in KLUE]) for each in MECHANISMS]
    columns += [("seeds", seeds)]
    rows = [[f"`{each}`", *(column[number] for _, column in columns)] for number, each in enumerate(MECHANISMS)]
    rows.append(["one answer for all", *floor, ""])
    return [*markdown_table(["mechanism", *(head for head, _ in columns)], rows), "", _conditions(cells)]


def klue_costs(records: Records) -> list[str]:
    """Peak memory and time of KLUE's mechanisms at 512 tokens and batch 15, forward and in training."""
    return _costs(records.find("klue/costs"), MECHANISMS)


def long_pairs_costs(records: Records) -> list[str]:
    """Peak memory and time of the mechanisms on long texts, at 512 tokens and batch 8, forward and in training."""
    return _costs(records.find("long_pairs/costs"), LONG_MECHANISMS)


def _costs(bench: Mapping[str, Any], mechanisms: Sequence[str]) -> list[str]:
    measured = {row["attention"]: row for row in bench.get("rows", [])}
    rows = []
    for each in mechanisms:
        points: list[dict[str, Any]] = [
            next(iter(measured.get(each, {}).get(kind, [])), {}) for kind in ("student", "training")
        ]
        costs = [_number(point.get(unit)) for point in points for unit in ("megabytes", "milliseconds")]
        rows.append([f"`{each}`", *costs])
    heads = [f"{kind}, {unit}" for kind in ("forward", "forward and backward") for unit in ("MB", "ms")]
    return [*markdown_table(["mechanism", *heads], rows), "", measured_on(bench.get("environment"))]


def long_pairs(records: Records) -> list[str]:
    """Mechanisms on long texts and pairs, an LSTM over the frozen encoder, and what earlier reports say of them."""
    cells, figures = records.find("long_pairs/summary"), records.json("published/systems")["accuracy"]
    tasks = [task for task in LONG if task in ("imdb", "sst2") or any(cell.startswith(f"{task}-") for cell in cells)]
    rows = []
    for each in ("teacher", *LONG_STUDENTS):
        row = ["teacher, softmax, six layers" if each == "teacher" else f"`{each}`"]
        for task in tasks:
            cell = cells.get(f"{task}-softmax" if each == "teacher" else f"{task}-{each}")
            row += _teacher_cells(cell) if each == "teacher" else _long_cells(cell)
        figure = figures.get(each)
        rows.append([*row, f"{figure['value']:g}, {figure['what']}" if figure else MISSING])
    parts = ("labels alone", "distilled", "kept, % [95 %]", "training, s", "evaluation, s per 1,000 texts")
    heads = [f"{LONG[task]} {part}" for task in tasks for part in parts]
    return [*markdown_table(["model", *heads, "in earlier reports"], rows), "", _conditions(cells)]


def long_pairs_longer(records: Records) -> list[str]:
    """Some of the same on IMDB, in stages of several epochs."""
    cells = records.find("long_pairs/longer")
    rows = [
        [f"`{each}`", *_long_cells(cells[f"imdb-{each}"])[:3]] for each in LONG_MECHANISMS if f"imdb-{each}" in cells
    ]
    heads = ["model", "labels alone", "distilled", "kept, % [95 %]"]
    return [*markdown_table(heads, rows), "", _conditions(cells)]


def _long_cells(cell: Mapping[str, Any] | None) -> list[str]:
    if cell is None:
        return [MISSING] * 5
    scores = [percent(_mean(cell, cell["main_metric"], role)) for role in ("baseline", "student")]
    return [*scores, interval(kept(dict(cell))), _number(cell.get("training_seconds")), _evaluation(cell, "student")]


def _teacher_cells(cell: Mapping[str, Any] | None) -> list[str]:
    if cell is None:
        return [MISSING] * 5
    score = percent(_mean(cell, cell["main_metric"], "teacher"))
    return [score, MISSING, MISSING, MISSING, _evaluation(cell, "teacher")]


def _evaluation(cell: Mapping[str, Any], role: str) -> str:
    """Return the seconds that a model needs for a thousand of the task's own texts."""
    found = cell.get("throughput") or {}
    rate, tokens = found.get(f"{role}_tokens_per_second"), found.get("tokens_per_example")
    return MISSING if not rate or not tokens else f"{1000 * tokens / rate:.1f}"


def _mean(cell: Mapping[str, Any] | None, metric: str, role: str) -> float | None:
    return None if cell is None else cell["metrics"][metric][role]["mean"]


def _metric(name: str) -> str:
    return METRIC_NAMES.get(name, name.replace("_", " ").replace("f1", "F1"))


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def _best_bold(scores: list[float | None]) -> list[str]:
    best = max((score for score in scores if score is not None), default=None)
    return [f"**{percent(score)}**" if score is not None and score == best else percent(score) for score in scores]


def _seeds(cells: Cells, names: list[str]) -> str:
    counts = {len(cells[name]["seeds"]) for name in names if name in cells}
    return "/".join(map(str, sorted(counts))) or MISSING


def _conditions(cells: Cells) -> str:
    """Say on what the runs of a sweep were made, and with which seeds."""
    if not cells:
        return measured_on(None)
    seeds = sorted({seed for cell in cells.values() for seed in cell["seeds"]})
    environments = [cell["environment"] for cell in cells.values() if cell.get("environment")]
    return f"{measured_on(*environments)} Seeds: {', '.join(map(str, seeds))}."
