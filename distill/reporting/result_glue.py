"""The tables of the pages about the default recipe on GLUE, each rendered from records."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from distill.reporting.result_records import (
    MAIN_METRICS,
    METRIC_NAMES,
    TASK_NAMES,
    Records,
    interval,
    kept,
    known,
    markdown_table,
    mean_interval,
    percent,
    points_by_length,
    score,
    times,
)

FIVE_TASKS = ("sst2", "cola", "mrpc", "stsb", "rte")
TASK_SUMMARIES = {
    "sst2": "is a sentence of a film review positive?",
    "cola": "is a sentence acceptable English?",
    "mrpc": "do two news sentences say the same?",
    "stsb": "how alike are two sentences, from 0 to 5?",
    "rte": "does the second sentence follow from the first?",
    "qqp": "do two questions ask the same?",
    "mnli": "does the second sentence follow from the first, contradict it, or neither?",
    "qnli": "does a sentence answer a question?",
    "wnli": "does the sentence follow in which a pronoun is replaced by its noun?",
}
SEEDS = (42, 43, 44)
STUDENTS = {
    "abc-6": "6 layers, ABC",
    "performer-6": "6 layers, Performer",
    "abc-4": "4 layers, ABC",
    "performer-3": "3 layers, Performer",
    "performer-3-exact-512": "3 layers, Performer, exact up to 512",
    "abc-3": "3 layers, ABC",
}
SOFTMAX = "3 layers, softmax"


def glue_retention(records: Records) -> list[str]:
    """What every student keeps of its teacher, on five tasks and on average."""
    rows = []
    for student, name in STUDENTS.items():
        shares = [kept(_glue_cell(records, task, student)) for task in FIVE_TASKS]
        average, _, rest = interval(mean_interval(shares)).partition(" ")
        without = percent(without_cola([known(share.value) for share in shares]))
        rows.append([name, f"**{average}** {rest}", without, *(interval(share) for share in shares)])
        if student == "abc-4":
            shares_of_depth = [_softmax_share(records, task) for task in FIVE_TASKS]
            both = mean(shares_of_depth), without_cola(shares_of_depth)
            rows.append([SOFTMAX, *(percent(share) for share in (*both, *shares_of_depth))])
    names = [f"{TASK_NAMES[task]} {METRIC_NAMES[MAIN_METRICS[task]]}" for task in FIVE_TASKS]
    return markdown_table(["kept, % of the teacher", "mean [95 %]", "without CoLA", *names], rows)


def without_cola(shares: Sequence[float]) -> float:
    """Return the mean over the other tasks: of CoLA the teacher itself knows little."""
    return mean(share for task, share in zip(FIVE_TASKS, shares, strict=True) if task != "cola")


def glue_scores(records: Records) -> list[str]:
    """The metric of the teacher and of every student."""
    cells = {student: [_glue_cell(records, task, student) for task in FIVE_TASKS] for student in STUDENTS}
    rows = [
        ["teacher (all-MiniLM-L6-v2, fine-tuned)", *(percent(score(cell, "teacher")) for cell in cells["performer-3"])]
    ]
    for student, found in cells.items():
        if student == "performer-3":
            rows.append([SOFTMAX, *(percent(mean(_softmax_scores(records, task))) for task in FIVE_TASKS)])
        rows.append([STUDENTS[student], *(percent(score(cell)) for cell in found)])
    heads = [f"{TASK_NAMES[task]} {METRIC_NAMES[MAIN_METRICS[task]]}" for task in FIVE_TASKS]
    return markdown_table(["metric on dev", *heads], rows)


def glue_tasks(records: Records) -> list[str]:
    """The tasks that were run: dev examples, and this page's teacher."""
    summary = records.json("glue/summary")
    rows = []
    for task in FIVE_TASKS:
        cell = summary[f"{task}-performer-3"]
        what = f"{TASK_NAMES[task]}: {TASK_SUMMARIES[task]} ({METRIC_NAMES[MAIN_METRICS[task]]})"
        rows.append([what, f"{cell['num_examples']:,}", percent(score(cell, "teacher"))])
    return markdown_table(["task", "dev examples", "teacher here, dev"], rows)


def published_glue(records: Records) -> list[str]:
    """The nine tasks: what is asked, how much data there is, and scores that others have published."""
    published = records.json("published/glue")
    sources = published["sources"]
    rows = []
    for task, what in TASK_SUMMARIES.items():
        found = published["tasks"][task]
        scores = [found["humans"], found["bert_large"], found["deberta"]]
        rows.append(
            [
                f"{TASK_NAMES[task]}: {what}",
                METRIC_NAMES[MAIN_METRICS[task]],
                f"{found['train']:,}",
                f"{found['dev']:,}",
                *("-" if score is None else f"{score:.1f}" for score in scores),
            ]
        )
    data, test, dev = (f"([source]({sources[name]['address']}))" for name in ("sizes", "test", "dev"))
    scores_of = [f"humans, test {test}", f"BERT-large, test {test}", f"DeBERTa, dev {dev}"]
    heads = ["task", "metric", f"train {data}", "dev", *scores_of]
    return markdown_table(heads, rows)


def glue_aims(records: Records) -> list[str]:
    """What was aimed at, and what was reached."""
    aims, summary = records.json("glue/aims")["aims"], records.json("glue/summary")
    rows = []
    for task, aim in aims["teacher"].items():
        reached = 100 * score(summary[f"{task}-performer-3"], "teacher")
        metric = METRIC_NAMES[MAIN_METRICS[task]]
        rows.append([f"teacher, {TASK_NAMES[task]} {metric}", f"{aim}", f"{reached:.1f}", _verdict(reached, aim)])
    for student, aim in aims["kept"].items():
        shares = {task: kept(_glue_cell(records, task, student)) for task in FIVE_TASKS}
        average = mean_interval(list(shares.values()))
        without = without_cola([known(share.value) for share in shares.values()])
        both = f"{interval(average)}; without CoLA {percent(without)}"
        rows.append([f"{STUDENTS[student]}, % kept", f"{aim}", both, _verdict(100 * known(average.value), aim)])
    softmax = mean(_softmax_share(records, task, SEEDS[0]) for task in FIVE_TASKS)
    abc = mean(known(kept(_glue_cell(records, task, "abc-3")).value) for task in FIVE_TASKS)
    aim = 100 * softmax - 1
    rows.append(
        ["3 layers, ABC, % kept: softmax of seed 42 less 1", f"{aim:.1f}", percent(abc), _verdict(100 * abc, aim)]
    )
    for student, lengths in aims["faster"].items():
        points = points_by_length(records.record(f"speed/{student}"))
        for length, aim in lengths.items():
            point = points[int(length)]
            what = f"{STUDENTS[student]}, times as fast at {length} tokens"
            rows.append([what, f"{aim}", times(point.interval), _verdict(known(point.speedup), aim)])
    return markdown_table(["what", "aim", "reached", ""], rows)


def glue_attention_cost(records: Records) -> list[str]:
    """Points of the teacher's metric that three layers lose to depth, and further ones to linear attention."""
    summary, rows = records.json("glue/summary"), []
    softmax = [_softmax_share(records, task) for task in FIVE_TASKS]
    performer = [known(kept(summary[f"{task}-performer-3"]).value) for task in FIVE_TASKS]
    for name, before, after in (
        ("fewer layers, softmax attention", [1.0] * len(softmax), softmax),
        ("then Performer", softmax, performer),
    ):
        lost = [one - other for one, other in zip(before, after, strict=True)]
        rows.append([name, *(percent(each) for each in (mean(lost), *lost))])
    return markdown_table(["points lost to", "mean", *(TASK_NAMES[task] for task in FIVE_TASKS)], rows)


def glue_changes(records: Records) -> list[str]:
    """What altered copies and features by layer change, one seed each."""
    summary = records.json("glue/summary")

    def single(name: str, metric: str) -> str:
        return interval(records.record(f"glue/{name}").retention[metric])

    stsb, cola = single("stsb-performer-3", "pearson"), single("cola-performer-3", "matthews_correlation")
    rows = [
        [
            "STS-B, 3 layers, Performer",
            "three altered copies",
            single("stsb-performer-3-without-copies", "pearson"),
            stsb,
        ],
        [
            *("STS-B, 3 layers, Performer, no copies", "32, 384 features instead of 256, 256"),
            single("stsb-performer-3-without-copies", "pearson"),
            single("stsb-performer-3-features-by-layer", "pearson"),
        ],
        [
            *("CoLA, 3 layers, Performer", "three altered copies", cola),
            single("cola-performer-3-with-copies", "matthews_correlation"),
        ],
    ]
    for task in ("mrpc", "stsb", "rte"):
        before, after = (interval(kept(summary[f"{task}-{student}"])) for student in ("abc-6", "abc-6-copies"))
        rows.append([f"{TASK_NAMES[task]}, 6 layers, ABC", "three altered copies", before, after])
    return markdown_table(["student", "change", "kept without, %", "kept with, %"], rows)


def glue_runs(records: Records) -> list[str]:
    """How long the stages of every student took, and at which commit."""
    summary, rows = records.json("glue/summary"), []
    for student, name in STUDENTS.items():
        cells = []
        for task in FIVE_TASKS:
            found = f"{task}-{student}-copies"
            run = records.record(f"glue/{found if found in summary else f'{task}-{student}'}")
            minutes = sum(known(stage.seconds) for stage in run.stages) / 60
            cells.append(f"{minutes:.0f} ({run.environment['commit'][:7]})")
        rows.append([name, *cells])
    return markdown_table(["minutes (commit), seed 42", *(TASK_NAMES[task] for task in FIVE_TASKS)], rows)


def _verdict(reached: float, aim: float) -> str:
    return "reached" if reached >= aim else "missed"


def _glue_cell(records: Records, task: str, student: str) -> dict[str, Any]:
    """Return a cell of the GLUE results: with altered copies where that was run apart."""
    summary = records.json("glue/summary")
    return summary.get(f"{task}-{student}-copies") or summary[f"{task}-{student}"]


def _softmax_scores(records: Records, task: str, *seeds: int) -> list[float]:
    """Return the metric of Performer's students before they became linear, by seed."""
    scores = []
    for seed in seeds or SEEDS:
        run = records.record(f"glue/{task}-performer-3" + ("" if seed == SEEDS[0] else f"-seed{seed}"))
        stages = {stage.name: stage.metrics or {} for stage in run.stages}
        scores.append(known(stages["depth_logits"][MAIN_METRICS[task]]))
    return scores


def _softmax_share(records: Records, task: str, *seeds: int) -> float:
    teacher = score(records.json("glue/summary")[f"{task}-performer-3"], "teacher")
    return mean(each / teacher for each in _softmax_scores(records, task, *seeds))
