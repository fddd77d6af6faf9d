"""The tables of the pages that say what things cost, in time and in memory, each rendered from records."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any, TypeVar

from distill.evaluation.record import Record, model_metrics
from distill.evaluation.record_parts import Interval
from distill.reporting.result_glue import FIVE_TASKS, SOFTMAX, STUDENTS, without_cola
from distill.reporting.result_records import (
    MAIN_METRICS,
    METRIC_NAMES,
    TASK_NAMES,
    Records,
    interval,
    known,
    markdown_table,
    mean_interval,
    percent,
    points_by_length,
    speedup_of,
    star,
    times,
)

T = TypeVar("T")


def only(found: Iterable[T]) -> T:
    """Return the one thing that is found; ValueError where there are none or several."""
    (one,) = found
    return one


def glue_speed(records: Records) -> list[str]:
    """How much faster every student is than its teacher, by length."""
    lengths, rows = (128, 512, 2048, 4096), []
    for student, name in STUDENTS.items():
        points = points_by_length(records.record(f"speed/{student}"))
        if student == "performer-3":
            found = [points[length] for length in lengths]
            rows.append([SOFTMAX, *(f"{known(point.depth_speedup):.2f}{star(point)}" for point in found)])
        rows.append([name, *(f"{times(points[length].interval)}{star(points[length])}" for length in lengths)])
    return markdown_table(["times as fast [95 %]", "128 tokens", *(str(length) for length in lengths[1:])], rows)


def glue_latency(records: Records) -> list[str]:
    """Milliseconds of the teacher and of every student, one text at a time."""
    lengths, rows = (128, 512, 2048, 4096), []
    for student, name in STUDENTS.items():
        points = points_by_length(records.record(f"speed/{student}"))
        found = [points[length] for length in lengths]
        rows.append([name, *(f"{point.teacher_ms:.0f} / {point.student_ms:.0f}{star(point)}" for point in found)])
    return markdown_table(["ms, teacher / student", "128 tokens", *(str(length) for length in lengths[1:])], rows)


def speed_variants(records: Records) -> list[str]:
    """Performer of three layers, its softmax control, and variants of both."""
    lengths = (128, 512, 2048, 4096)
    by_length = points_by_length(records.record("speed/performer-3"))
    first = [by_length[length] for length in lengths]
    rows = [
        ["Performer", *(f"{point.speedup:.2f}{star(point)}" for point in first)],
        ["softmax, same depth", *(f"{point.depth_speedup:.2f}{star(point)}" for point in first)],
    ]
    for name, what in (("one-softmax", "Performer, the middle layer exact"), ("xeon", "Performer, on an Intel Xeon")):
        points = points_by_length(records.record(f"speed/performer-3-{name}"))
        variant = [points.get(length) for length in lengths]
        rows.append([what, *(f"{point.speedup:.2f}{star(point)}" if point else "-" for point in variant)])
    return markdown_table(["3 layers, times as fast", "128 tokens", "512", "2048", "4096"], rows)


def kernels(records: Records) -> list[str]:
    """Performer's core attention against its rivals, for 64, 128 and 256 features."""
    columns = [("sdpa", 64), ("sdpa", 128), ("sdpa", 256), ("eager softmax", 128), ("performer-pytorch", 128)]
    points: dict[tuple[str, int], dict[tuple[str, int], str]] = {}
    for each in records.json("kernels/bench")["rows"]:
        column = (each["rival"], each["num_features"])
        points.setdefault((each["pass"], each["length"]), {})[column] = times(speedup_of(each))
    rows = [
        [name, str(length), *(found[column] for column in columns)] for (name, length), found in sorted(points.items())
    ]
    heads = [f"{rival}, m = {features}" for rival, features in columns]
    return markdown_table(["pass", "tokens", *heads], rows)


def training_speed(records: Records) -> list[str]:
    """Training steps by us and in other ways, at two lengths, in one run each."""
    found = [records.json(f"training_speed/{name}") for name in ("sst2", "imdb")]
    steps = {"layers": "layers", "decisions": "hidden states, logits", "fine-tuning": "fine-tuning"}
    rows = []
    for name, words in steps.items():
        (ours, *_), *_ = both = [record[name] for record in found]
        for others in zip(*both, strict=True):
            if others[0] is not ours:
                figures = [figure for rows, way in zip(both, others, strict=True) for figure in _against(rows[0], way)]
                rows.append([words, others[0]["way"], *figures])
    heads = [f"{head}, {tokens}" for tokens in ("SST-2", "128 tokens") for head in ("examples/s", "ours", "times")]
    return markdown_table(["steps", "way", *heads], rows)


def _against(ours: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the examples per second of another way and of ours, and how much faster ours is."""
    rates = [f"{each['examples_per_second']:.0f}" for each in (other, ours)]
    return [*rates, f"{other['ours_is_faster_by']:.2f} [{other['low']:.2f}, {other['high']:.2f}]"]


def repeatability(records: Records) -> list[str]:
    """How far a measured speedup can be trusted."""
    models = {
        "demo": "the demo's",
        "sst2": "SST-2: 6 layers, Performer, learned features",
        "mrpc": "MRPC: 6 layers, Performer",
        "stsb": "STS-B: 6 layers, Performer",
    }
    rows = []
    for name, found in records.json("repeatability/bench").items():
        agreeing, null = found["repeatability"], found["null"]
        rows.append(
            [
                models[name],
                f"{agreeing['overlapping']} of {agreeing['points']}",
                f"{agreeing['inside']} of {agreeing['pairs']}",
                f"{agreeing['inside_each_other']} of {agreeing['points']}",
                f"{null['covered']} of {null['points']}",
            ]
        )
    heads = ["models", "points at which all three intervals overlap", "speedups inside another run's interval"]
    return markdown_table([*heads, "points at which all are", "teacher against itself: interval contains 1"], rows)


NARROW = {
    "performer-5x192": ("5 x 192 x 192", (42,)),
    "performer-5x256x256": ("5 x 256 x 256", (42, 43, 44)),
    "performer-5x256": ("5 x 256 x 512", (42,)),
}
"""Students of configs/sweeps/narrow.yaml: layers, width, feed-forward units, and the seeds of their records."""
NARROW_LENGTHS = (16, 32, 128, 512)


def deployed(records: Records) -> list[str]:
    """Narrow students and their teachers as int8 files: how fast on one thread, and what they keep of the teachers."""
    rows = []
    for student, (shape, seeds) in NARROW.items():
        of_seeds = []
        for seed in seeds:
            name = student if seed == seeds[0] else f"{student}-seed{seed}"
            runs = {task: records.record(f"narrow/{task}-{name}") for task in FIVE_TASKS}
            files = {
                task: only(each for each in run.deployments if each.dtype == "int8") for task, run in runs.items()
            }
            kept = [(each.teacher_retention or {})[runs[task].main_metric] for task, each in files.items()]
            of_seeds.append(kept)
            if seed == seeds[0]:
                in_torch, file = points_by_length(records.record(f"narrow/speed-{student}")), files["mrpc"]
                exported = {each.length: each for each in file.speed if (each.batch_size, each.threads) == (1, 1)}
                speeds = [known(in_torch[each].speedup) * known(exported[each].speedup) for each in NARROW_LENGTHS]
                rows.append(_deployed_row(f"student {shape}", file.megabytes, speeds, kept))
            else:
                rows.append(_deployed_row(f"the same, seed {seed}", files["mrpc"].megabytes, (), kept))
        if len(of_seeds) > 1:
            rows.append(_mean_row(of_seeds))
    first = next(iter(NARROW))
    runs = {task: records.record(f"narrow/{task}-{first}") for task in FIVE_TASKS}
    rivals = {task: only(each for each in run.alternatives if each.dtype == "int8") for task, run in runs.items()}
    timed = only(each for each in records.record(f"narrow/speed-{first}").alternatives if each.dtype == "int8")
    speeds = [known(timed.usual_speed[each].speedup) for each in NARROW_LENGTHS]
    kept = [(each.retention or {})[runs[task].main_metric] for task, each in rivals.items()]
    rows.append(_deployed_row("teacher", rivals["mrpc"].megabytes, speeds, kept))
    heads = ["int8 in ONNX Runtime", "MB", *(f"at {each}" for each in NARROW_LENGTHS), "kept, %: mean", "without CoLA"]
    names = [f"{TASK_NAMES[task]} {METRIC_NAMES[MAIN_METRICS[task]]}" for task in FIVE_TASKS]
    return markdown_table([*heads, *names], rows)


def _deployed_row(name: str, size: float | None, speeds: Sequence[float], kept: Sequence[Interval]) -> list[str]:
    """Return a row of the table."""
    without = percent(without_cola([known(each.value) for each in kept]))
    cells = [interval(mean_interval(kept)), without, *(interval(each) for each in kept)]
    timed = [f"{each:.1f}" for each in speeds] or [""] * len(NARROW_LENGTHS)
    return [name, f"{size:.0f}", *timed, *cells]


def _mean_row(of_seeds: Sequence[Sequence[Interval]]) -> list[str]:
    """Return the row of means over seeds."""
    shares = [[known(each.value) for each in kept] for kept in of_seeds]
    of_tasks = [mean(each) for each in zip(*shares, strict=True)]
    cells = [f"**{percent(mean(of_tasks))}**", percent(without_cola(of_tasks)), *map(percent, of_tasks)]
    return [f"**mean of {len(of_seeds)} seeds**", "", *[""] * len(NARROW_LENGTHS), *cells]


def target_speed(records: Records) -> list[str]:
    """A student that was asked for by its speed: the shapes that were tried, and the rival that costs nothing."""
    run = records.record("speed/mrpc-target-5")
    search, metric = run.search, run.main_metric
    assert search is not None
    rows = []
    for each in search.tried:
        shape, kept = each.shape, ""
        name = f"{shape.num_layers} x {shape.hidden_size} x {shape.intermediate_size}"
        if shape == search.chosen:
            name, kept = f"**{name}, taken**", interval(run.retention[metric])
        agreement = "" if each.agreement is None else percent(each.agreement)
        rows.append([name, f"{each.speedup:.2f} [{each.low:.2f}, {each.high:.2f}]", agreement, kept])
    rows.append(["its int8 file in ONNX Runtime", *_int8_against_teacher(run, search.length)])
    rival = only(each for each in run.alternatives if each.dtype == "int8")
    point = rival.usual_speed[search.length]
    rows.append([rival.name, times(point.interval), "", interval((rival.retention or {})[metric])])
    heads = ["layers x width x feed-forward", "times as fast [95 %]", "same answers after a short run, %"]
    return markdown_table([*heads, "F1 kept in the end, % [95 %]"], rows)


def _int8_against_teacher(run: Record, length: int) -> list[str]:
    """Return how many times as fast as the teacher in torch a student's int8 file is, nothing, and what it keeps."""
    (file,) = [each for each in run.deployments if each.dtype == "int8"]
    (deployed,) = [each for each in file.speed if (each.length, each.batch_size, each.threads) == (length, 1, 1)]
    (student,) = [each for each in run.speed if (each.length, each.batch_size) == (length, 1)]
    scores = [known(metrics[run.main_metric]) for metrics in (file.metrics or {}, model_metrics(run, "teacher"))]
    return [f"{known(student.speedup) * known(deployed.speedup):.1f}", "", percent(scores[0] / scores[1])]


def kill_tests(records: Records) -> list[str]:
    """Runs that were killed, started again and compared with an undisturbed one."""
    found = records.json("chaos/chaos")
    rows = [["all", str(found["kills"]), str(found["equal"])]]
    for key, what in (("kind", "killed at"), ("phase", "phase")):
        counted, equal = (
            Counter(run[key] for run in found["runs"] if run["equal"] or every) for every in (True, False)
        )
        rows += [[f"{what}: {name}", str(counted[name]), str(equal[name])] for name in counted]
    return markdown_table(["kills", "runs", "ended bit-equal"], rows)


def checkpoint_cost(records: Records) -> list[str]:
    """The share of the demo's training time that went into checkpoints."""
    rows = [
        [stage.name, f"{stage.seconds:.1f}", percent(known(stage.checkpoint_seconds) / known(stage.seconds))]
        for stage in records.record("demo/record").stages
    ]
    return markdown_table(["stage of the demo", "seconds", "of them in checkpoints, %"], rows)
