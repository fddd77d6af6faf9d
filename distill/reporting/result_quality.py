"""The tables of the pages that say what students keep of their teachers beyond the default recipe, from records."""

import textwrap
from statistics import mean
from typing import Any

from distill.evaluation.pareto import pareto_front
from distill.evaluation.record import MODELS, model_metrics
from distill.reporting.record_tables import comparison_table, model_cells
from distill.reporting.result_records import (
    MAIN_METRICS,
    METRIC_NAMES,
    TASK_NAMES,
    Records,
    interval,
    kept,
    known,
    markdown_table,
    percent,
    points_by_length,
    score,
    speedup_of,
    star,
    times,
)
from distill.reporting.tables import text_table
from distill.utils.record_json import to_json

NO_COSTS = ["-"] * 7
SEEDS = (42, 43, 44)
DEMO_SEEDS = range(42, 47)
UNLABELLED = (
    ("SST-2, 1,000 sentences", "without"),
    ("SST-2, 1,000 sentences", "with"),
    ("IMDB, 1,000 reviews", "imdb-without"),
    ("IMDB, 1,000 reviews", "imdb-with"),
)
"""What is labelled, and the record of the run."""
OWN_DATA = {
    "sst2-600": "600 sentences of SST-2",
    "sst2-1000-bert": "1,000 sentences of SST-2",
    "sst2-1000-roberta": "... RoBERTa's form",
    "sst2-1000-electra": "... ELECTRA's form",
    "sst2-1200": "1,200 sentences of SST-2",
    "sst2-3000": "3,000 sentences of SST-2",
    "cola-2000": "2,000 sentences of CoLA",
    "imdb-1000": "1,000 reviews of IMDB, cut at 128 tokens",
    "mrpc-1000": "1,000 pairs of MRPC",
    "mrpc-all": "all 3,668 pairs of MRPC",
    "stsb-1000": "1,000 pairs of STS-B",
    "tickets": "1,200 generated tickets, five classes",
}
"""Record to what it is about; as validation the task's own, of the tickets 200 rows split off."""


def mechanisms(records: Records) -> list[str]:
    """Every mechanism: what six layers of it keep, on miniature GLUE too, how fast it is and how it grows."""
    summary, miniature, costs = records.json("mechanisms/summary"), _miniature(records), _costs(records)
    tasks = ("sst2", "cola", "mrpc")
    students = dict.fromkeys(cell.split("-", 1)[1] for cell in summary)  # in order, so that ties fall alike
    shares = {student: [kept(summary[f"{task}-{student}"]) for task in tasks] for student in students}
    rows = [
        [
            f"`{student}`",
            *(interval(share) for share in shares[student]),
            miniature[student],
            *costs.get(student, NO_COSTS),
        ]
        for student in sorted(students, key=lambda student: -mean(known(share.value) for share in shares[student]))
    ]
    timed_alone = sorted(set(costs) - set(students))
    rows += [[f"`{student}`", *["-"] * (len(tasks) + 1), *costs[student]] for student in timed_alone]
    heads = ["student", *(f"{TASK_NAMES[task]} kept, % [95 %]" for task in tasks), "miniature"]
    speeds = ["times as fast at 128", "at 512", "at 2048", "at 4096", "alone at 8192", "time ~N^", "memory ~N^"]
    return markdown_table([*heads, *speeds], rows)


def _miniature(records: Records) -> dict[str, str]:
    """Return mean scores of student and labels alone on miniature GLUE, and on how many tasks the gain is proven."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in records.rows("mechanisms_embedded/leaderboard.csv"):
        if row["metric"] == MAIN_METRICS[row["task"]]:
            found.setdefault(row["student"], []).append(row)
    cells = {}
    for student, rows in found.items():
        own, alone = (mean(float(row[f"{role}_mean"]) for row in rows) for role in ("student", "baseline"))
        proven = sum(float(row["gain_low"]) > 0 for row in rows)
        cells[student] = f"{percent(own)} / {percent(alone)}, {proven} of {len(rows)}"
    return cells


def _costs(records: Records) -> dict[str, list[str]]:
    """Return speedups of a whole student and of the mechanism alone, and the newest exponents of its growth."""
    cells, newest = dict[str, list[str]](), dict[str, dict[str, Any]]()
    for name in ("two_more", "all", "features", "performer"):
        newest |= {row["attention"]: row for row in records.json(f"mechanism_costs/{name}")["rows"]}
    measured = records.json("mechanism_costs/all")["rows"], records.json("mechanism_costs/two_more")["rows"]
    first = {row["attention"]: row for rows in reversed(measured) for row in rows}
    for row in first.values():
        alone = next((point["speedup"] for point in row["core"] or [] if point["length"] == 8192), None)
        exponents = [newest[row["attention"]][f"{what}_exponent"] for what in ("time", "memory")]
        numbers = [(alone, 1), *((exponent, 2) for exponent in exponents)]
        cells[row["attention"]] = [
            *(times(speedup_of(point)) for point in row["student"]),
            *("-" if value is None else f"{value:.{digits}f}" for value, digits in numbers),
        ]
    return cells


def mechanisms_longer(records: Records) -> list[str]:
    """What more training brings the mechanisms that a star marks."""
    names = ("long-reformer", "long-reformer-mrpc", "long-reformer-rte", "long-rfa", "long-fnet", "logits-fnet")
    rows = []
    for name in (*names, "long-linformer"):
        run = records.record(f"mechanisms_embedded/{name}")
        scores = [percent(model_metrics(run, role).get(run.main_metric)) for role in MODELS]
        training = "logits alone" if name.startswith("logits") else "all stages"
        rows.append([str(run.models.student.attention), TASK_NAMES[run.task], training, *scores])
    return markdown_table(["student", "task", "trained by", "teacher", "student", "labels alone"], rows)


LEVERS = {
    "recipe": "depth first; 256 learned features, exact last layer, layers 0, 2, 4",
    "softmax": "never made linear",
    "abc": "ABC, 64 slots",
    "one_softmax": "the layer before the last exact too",
    "performer_last": "the last layer linear too",
    "features_64": "64 features",
    "features_by_layer": "64, 256, 64 features",
    "fixed": "features drawn, not learned",
    "slow_features": "features learn ten times as fast as the rest, not a hundred times",
    "joint": "depth and attention at once",
    "no_transfer": "without `transfer`",
    "no_layers": "without `layers`",
    "no_logits": "without `logits`",
    "context": "`transfer` matches the attention context",
    "maps": "`transfer` matches attention maps",
    "value_relations": "`layers` matches value relations too",
    "all_tokens": "all tokens of the last layer, not its first alone",
    "copies": "three altered copies of every text, a quarter of the epochs",
    "replaced": "the same, words replaced alone",
    "mixed": "the same, mixed alone",
    "shortened": "the same, cut alone",
    "mean_weights": "weights of the last two epochs of `logits` averaged",
    "importance": "layers chosen by measured importance",
    "cold": "temperature 1, not 2",
    "annealed": "temperature from 4 to 1",
}


def ablation(records: Records) -> list[str]:
    """What each part of the recipe buys: every student differs from `recipe` in one thing."""
    summary, rows = records.json("ablation/summary"), []
    for student in dict.fromkeys(cell.split("-", 1)[1] for cell in summary):
        cells = [f"`{student}`", LEVERS[student]]
        for task in ("cola", "mrpc"):
            found = summary[f"{task}-{student}"]
            gain = found.get("over_reference")
            points = (
                "{:+.1f} [{:.1f}, {:.1f}]".format(*(100 * gain[end] for end in ("value", "low", "high")))
                if gain
                else ""
            )
            cells += [percent(score(found)), points, f"{found['kl_to_teacher']:.3f}"]
        rows.append(cells)
    heads = [text for name in ("CoLA Matthews", "MRPC F1") for text in (name, "over `recipe` [95 %]", "KL")]
    return markdown_table(["student", "different from `recipe`", *heads], rows)


def front(records: Records) -> list[str]:
    """Four depths and five kinds of attention; in bold the Pareto front at 2,048 tokens."""
    summary, tasks = records.json("front/summary"), ("sst2", "mrpc")
    kinds = ("softmax", "performer", "performer-fixed", "hedgehog", "hybrid")
    students = [f"{kind}-{layers}" for layers in (6, 4, 3, 2) for kind in kinds]
    speeds = {student: points_by_length(records.record(f"speed/{student}")) for student in students}
    fronts = {
        task: pareto_front(
            {
                student: (known(speeds[student][2048].speedup), known(kept(summary[f"{task}-{student}"]).value))
                for student in students
            }
        )
        for task in tasks
    }
    rows = []
    for student in students:
        cells = []
        for task in tasks:
            value, _, rest = interval(kept(summary[f"{task}-{student}"])).partition(" ")
            cells.append(f"**{value}** {rest}" if student in fronts[task] else f"{value} {rest}")
        points = [speeds[student][length] for length in (512, 2048)]
        rows.append([f"`{student}`", *cells, *(f"{times(point.interval)}{star(point)}" for point in points)])
    heads = ["SST-2 accuracy kept, % [95 %]", "MRPC F1 kept, % [95 %]"]
    return markdown_table(["student", *heads, "times as fast at 512 tokens", "at 2048"], rows)


def long_documents(records: Records) -> list[str]:
    """A student that reads a whole review at once, of a teacher that reads windows of 512 tokens."""
    run, whole, first = (records.record(f"imdb/{name}") for name in ("performer-4", "whole", "first-512"))
    pairs, points = records.json("imdb/against-first-512"), points_by_length(whole)
    teacher, student, reading_first = (
        percent(model_metrics(found, role)["accuracy"])
        for found, role in ((run, "teacher"), (run, "student"), (first, "teacher"))
    )
    long = [points[length] for length in (1024, 2048)]
    teacher_ms, student_ms = (
        [f"{point.teacher_ms:.0f}" for point in long],
        [f"{point.student_ms:.0f}" for point in long],
    )
    rows = [
        ["teacher, first 512 tokens", reading_first, "", "", "", ""],
        ["teacher, all in windows of 512", teacher, "100", *teacher_ms, "1"],
        [
            *("student, 4 layers, Performer, 2,048 at once", f"**{student}**", interval(run.retention["accuracy"])),
            *(*student_ms, times(points[2048].interval)),
        ],
    ]
    heads = ["1,000 long reviews", "accuracy", "kept, % [95 %]", "ms at 1,024 tokens", "at 2,048"]
    notes = (
        "Against the teacher on the first 512 tokens the student is right where that one is wrong {only_second} "
        "times, wrong where that one is right {only_first} times (McNemar, p = {p:.2f}).".format(**pairs)
    )
    throughput = (
        "On {num_examples} of the reviews themselves it is {speedup:.2f} [{low:.2f}, {high:.2f}] times as fast."
    )
    return [
        *markdown_table([*heads, "times as fast at 2,048 [95 %]"], rows),
        "",
        f"{notes} {throughput.format(**to_json(whole.throughput))}",
    ]


def own_data(records: Records) -> list[str]:
    """Data of one's own: `configs/custom.yaml`, whose recipe is chosen from the data."""
    rows = []
    for name, what in OWN_DATA.items():
        run = records.record(f"own_data/{name}")
        metric = run.main_metric
        (int8,) = [each for each in run.alternatives if each.dtype == "int8"]
        found = [*(model_metrics(run, role) for role in MODELS), int8.metrics or {}]
        scores = [percent(metrics[metric]) for metrics in found]
        linear = run.linear_form.retention if run.linear_form else {}
        shares = [interval(each[metric]) for each in (run.retention, linear, run.gain or {})]
        rows.append([f"{what}, {METRIC_NAMES[metric]}", *scores, *shares])
    heads = ["data", "teacher", "student", "labels alone", "teacher in int8", "kept, % [95 %]"]
    return markdown_table([*heads, "in linear form", "points over labels alone"], rows)


def unlabelled(records: Records) -> list[str]:
    """What texts without labels bring, beside the same run without them."""
    rows = []
    for data, name in UNLABELLED:
        run = records.record(f"unlabelled/{name}")
        texts = "none" if run.unlabelled is None else f"{run.unlabelled.texts:,}"
        scores = [percent(model_metrics(run, role)["accuracy"]) for role in ("teacher", "student")]
        divergence = known(run.kl_to_teacher)
        kept, same = interval(run.retention["accuracy"]), percent(run.agreement)
        rows.append([data, texts, *scores, kept, same, f"{divergence:.2f}"])
    heads = [
        "labelled",
        "texts without",
        "teacher",
        "student",
        "kept, % [95 %]",
        "same answers, %",
        "KL divergence, nats",
    ]
    return markdown_table(heads, rows)


def demo(records: Records) -> list[str]:
    """The demo in both precisions, by seed."""
    rows = []
    for precision, name in (("no", "fp32"), ("bf16", "bf16")):
        runs = [records.record(f"demo/{precision}-{seed}") for seed in DEMO_SEEDS]
        scores = [", ".join(percent(model_metrics(run, role)["accuracy"]) for run in runs) for role in MODELS]
        rows.append([name, *scores, ", ".join(percent(run.retention["accuracy"].value) for run in runs)])
    seeds = f"seeds {DEMO_SEEDS[0]} to {DEMO_SEEDS[-1]}"
    return markdown_table([f"accuracy, {seeds}", "teacher", "student", "labels alone", "kept, %"], rows)


def demo_output(records: Records) -> list[str]:
    """What the demo prints at its end, but for its tables."""
    verdict = comparison_table(records.record("demo/record")).split("\n\n", 1)[0]
    return ["```text", *textwrap.wrap(verdict, 118), "```"]


def run_output(records: Records) -> list[str]:
    """What a run prints at its end: the verdict and the first table of `own_data`'s run."""
    run = records.record("own_data/sst2-1200")
    verdict, models = comparison_table(run).split("\n\n", 1)[0], text_table(model_cells(run))
    shown = [line.rstrip() for line in models.splitlines()]
    return ["```text", *textwrap.wrap(verdict, 118), "", *shown, "```"]
