"""The README's numbers are those of the records beside it, and its files and commands exist."""

import csv
import re
from statistics import mean

import pytest
from helpers.readme import MAIN_METRICS, README, RECORDS, ROOT, kept, percent, record, table

from distill.tasks import TASKS
from pipelines.bench_repeatability import null_coverage, repeatability
from students import ATTENTIONS, STUDENTS

SEEDS = (42, 43, 44)


def row(first_cell: str) -> list[str]:
    """Return the cells of the one table row that starts with ``first_cell``."""
    lines = [line for line in README.splitlines() if line.startswith(f"| {first_cell} |")]
    assert len(lines) == 1, f"{len(lines)} rows start with {first_cell!r}"
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


@pytest.mark.parametrize("layers", [3, 6])
def test_the_table_of_three_seeds_is_what_the_records_say(layers):
    records = [record(f"sst2-performer-{layers}-seed{seed}") for seed in SEEDS]
    first = records[0]
    assert all(each["models"]["teacher"]["metrics"] == first["models"]["teacher"]["metrics"] for each in records)
    scores = [each["models"]["student"]["metrics"]["accuracy"] for each in records]
    retention = [each["retention"]["accuracy"] for each in records]
    speed = {point["length"]: point for point in first["speed"] if point["batch_size"] == 1}
    expected = [
        f"{layers} layers, Performer",
        percent(mean(scores)),
        f"**{percent(mean(each['value'] for each in retention))} %**",
        ", ".join(f"{percent(each['value'])} [{percent(each['low'])}, {percent(each['high'])}]" for each in retention),
        percent(first["models"]["baseline"]["metrics"]["accuracy"]),
        *(
            f"{speed[length]['speedup']:.2f}x [{speed[length]['low']:.2f}, {speed[length]['high']:.2f}]"
            for length in (128, 512, 2048)
        ),
    ]
    rows = table("| student of a 6-layer teacher")
    assert [f"{layers} layers, Performer", *rows[f"{layers} layers, Performer"]] == expected


def scores_and_retention(name: str) -> dict[str, list[str]]:
    """Return two cells per task, "-" where there is no run, by student: what a sweep's table must say."""
    cells = {
        tuple(cell.split("-", 1)): [
            percent(each["metrics"][MAIN_METRICS[each["task"]]]["student"]["mean"]),
            "{value} [{low}, {high}]".format(**{key: percent(value) for key, value in kept(each).items()}),
        ]
        for cell, each in record(name).items()
    }
    tasks = [task for task in MAIN_METRICS if any(task == each for each, _ in cells)]
    students = {student for _, student in cells}
    return {
        student: [text for task in tasks for text in cells.get((task, student), ["-", "-"])] for student in students
    }


def test_the_table_of_the_zoo_is_what_the_record_says():
    rows, expected = table("| student | SST-2 accuracy |"), scores_and_retention("zoo")
    assert set(rows) == set(expected) == {*STUDENTS, "performer-learned"}
    assert {student: cells[:-1] for student, cells in rows.items()} == expected


def test_the_table_of_the_miniature_zoo_is_what_the_record_says():
    """Student / labels alone, starred where the interval of the gain reaches 0; the first row is the teacher."""
    with (RECORDS / "zoo_embedded.csv").open(newline="") as file:
        found = [each for each in csv.DictReader(file) if each["metric"] == TASKS[each["task"]].main_metric]
    expected: dict[tuple[str, str], str] = {}
    for each in found:
        student, alone = percent(float(each["student_mean"])), percent(float(each["baseline_mean"]))
        star = "" if float(each["gain_low"]) > 0 else " *"
        expected[each["student"], each["task"]] = f"{student} / {alone}{star}"
        expected["teacher", each["task"]] = percent(float(each["teacher_mean"]))
    order = ("sst2", "cola", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
    tasks = [task for task in order if any(task == each for _, each in expected)]
    assert table("| miniature |") == {
        student: [expected[student, task] for task in tasks] for student in ("teacher", *STUDENTS, "performer-learned")
    }


def test_what_longer_training_brings_is_what_the_records_say():
    def score(name, role):
        run = record(f"embedded-{name}")
        return percent(run["models"][role]["metrics"][MAIN_METRICS.get(run["task"], "accuracy")])

    text = " ".join(README.split())
    for sentence, parts in (
        ("reach {} and {} on SST-2 instead of", [("long-reformer", "student"), ("long-rfa", "student")]),
        (
            "and `reformer` {} on MRPC and {} on RTE",
            [(f"long-reformer-{task}", "student") for task in ("mrpc", "rte")],
        ),
        ("labels alone have {} and {} (", [(f"long-reformer-{task}", "baseline") for task in ("mrpc", "rte")]),
        ("It reaches {} so (", [("long-fnet", "student")]),
        ("and {} with nine epochs of `logits` alone", [("logits-fnet", "student")]),
        (
            "it reaches {}, the teacher {}, labels alone {}",
            [("long-linformer", "student"), ("long-linformer", "teacher"), ("long-linformer", "baseline")],
        ),
        (
            "at {} (`reformer`), {} (`rfa`) and {} (`fnet`)",
            [(f"long-{name}", "baseline") for name in ("reformer", "rfa", "fnet")],
        ),
        ("the teacher at {}.", [("long-rfa", "teacher")]),
    ):
        assert sentence.format(*(score(*part) for part in parts)) in text


def test_the_table_of_recipes_is_what_the_record_says():
    assert table("| three layers | CoLA Matthews |") == scores_and_retention("recipes")
    for task, words in (("cola", "{} on CoLA"), ("mrpc", "F1 {} on MRPC"), ("stsb", "{} on STS-B")):
        stages = {each["name"]: each for each in record(f"recipes-{task}-abc_depth_first")["stages"]}
        assert words.format(percent(stages["depth_logits"]["metrics"][MAIN_METRICS[task]])) in README


def test_the_speed_of_three_layers_is_what_the_record_says():
    found = record("mrpc-abc-3")
    points = {
        point["length"]: "{speedup:.2f} [{low:.2f}, {high:.2f}]".format(**point)
        for point in [*found["speed"], {**found["noise"], "speedup": found["noise"]["ratio"], "length": "noise"}]
    }
    text = " ".join(README.split())
    assert f"{points[128]} times as fast as its teacher at 128 tokens, {points[512]} at 512" in text
    assert f"{points[2048]} at 2048 and {points[4096]} at 4096" in text
    assert f"the teacher against itself: {points['noise']}" in text


def test_the_table_of_costs_is_what_the_record_says():
    rows = table("| attention | speed at 128 |")
    measured = record("bench_zoo")["rows"]
    assert set(rows) == {f"`{each['attention']}`" for each in measured} == {f"`{name}`" for name in STUDENTS}
    for each in measured:
        *_, longest = points = each["student"]
        assert [point["length"] for point in points] == [128, 512, 2048, 4096]
        expected = [f"{point['speedup']:.2f} [{point['low']:.2f}, {point['high']:.2f}]" for point in points]
        expected += [f"{longest['flops'] / 1e9:.0f}", f"{longest['megabytes']:.0f}"]
        exponents = (each[f"{what}_exponent"] for what in ("time", "memory"))
        expected += ["-" if value is None else f"{value:.2f}" for value in exponents]
        assert rows[f"`{each['attention']}`"] == expected


def test_the_growth_of_features_in_parts_is_what_the_record_says():
    text = " ".join(README.split())
    for each in record("bench_zoo_features")["rows"] + record("bench_zoo_performer")["rows"]:
        exponents = f"{each['time_exponent']:.2f} and {each['memory_exponent']:.2f}"
        assert each["attention"] == "softmax" or f"`{each['attention']}` {exponents}" in text


def test_the_training_table_is_what_the_record_says():
    for each in record("bench_training")["rows"]:
        ratio = f"{each['ours_is_faster_by']:.2f}x [{each['low']:.2f}, {each['high']:.2f}]"
        assert row(each["way"])[1:] == [f"{each['examples_per_second']:.0f}", ratio]


def test_the_kernel_table_is_what_the_record_says():
    points = {
        (each["pass"], each["length"], each["num_features"], each["rival"]): each for each in record("bench")["rows"]
    }
    checked = 0
    for line in README.splitlines():
        match = re.match(r"\| (forward|forward\+backward) \| (\d+) \| (\d+) \|(.*)\|$", line)
        if match is None:
            continue
        cells = [cell.strip() for cell in match.group(4).split("|")]
        for cell, rival in zip(cells, ("sdpa", "eager softmax", "performer-pytorch"), strict=True):
            point = points[match.group(1), int(match.group(2)), int(match.group(3)), rival]
            ratio = point["speedup"]
            assert cell == ("-" if ratio is None else f"{ratio:.2f} [{point['low']:.2f}, {point['high']:.2f}]")
            checked += 1
    assert checked >= 3 * 14


def test_every_path_that_it_names_exists():
    made_by_runs = ("runs/",)
    for path in set(
        re.findall(r"(?<![\w/])(?:configs|pipelines|distill|students|teachers|notebooks|tests)/[\w./-]*\w", README)
    ):
        assert path.startswith(made_by_runs) or (ROOT / path).exists(), path


def test_the_table_of_mechanisms_is_what_the_classes_say():
    rows = table("| name | idea |")
    assert {name.strip("`") for name in rows} == set(ATTENTIONS)
    for name, (_, _, maps, options) in rows.items():
        attention = ATTENTIONS[name.strip("`")]
        assert maps == ("yes" if attention.has_attention_map else "no"), name
        assert options == ", ".join(attention.options), name


def test_the_figures_of_int8_are_what_the_record_says():
    found = record("sst2-performer-learned-export")
    int8 = next(each for each in found["deployments"] if each["dtype"] == "int8")
    point = next(each for each in int8["speed"] if (each["batch_size"], each["length"]) == (1, 128))
    score, lossy = (percent(each["metrics"]["accuracy"]) for each in (found["models"]["student"], int8))
    expected = f"{score} in torch and ONNX, {lossy} in int8, which runs {point['speedup']:.2f} times as fast as torch"
    assert expected in " ".join(README.split())


def test_the_table_of_repetitions_is_what_the_record_says():
    for name, found in record("bench_repeat").items():
        agreeing, covered = repeatability(found["runs"]), null_coverage(found["null_run"])
        assert (agreeing, covered) == (found["repeatability"], found["null"])
        points, pairs = agreeing["points"], agreeing["pairs"]
        row = [f"{agreeing['overlapping']} of {points}", f"{agreeing['inside']} of {pairs}"]
        row += [f"{agreeing['inside_each_other']} of {points}", f"{covered['covered']} of {covered['points']}"]
        assert " | " + " | ".join(row) + " |" in README, name
