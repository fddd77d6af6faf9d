"""The README's numbers are those of the records beside it, and its files and commands exist."""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

from pipelines.bench_repeat import null_coverage, repeatability
from students import ATTENTIONS, STUDENTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
RECORDS = ROOT / "notebooks" / "records"
SEEDS = (42, 43, 44)


def record(name: str) -> dict:
    return json.loads((RECORDS / f"{name}.json").read_text())


def row(first_cell: str) -> list[str]:
    """Return the cells of the one table row that starts with ``first_cell``."""
    lines = [line for line in README.splitlines() if line.startswith(f"| {first_cell} |")]
    assert len(lines) == 1, f"{len(lines)} rows start with {first_cell!r}"
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


@pytest.mark.parametrize("layers", [3, 6])
def test_the_result_table_is_what_the_records_say(layers):
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
    assert row(f"{layers} layers, Performer") == expected


def test_the_table_of_the_zoo_is_what_the_records_say():
    quality = {name.removeprefix("sst2-"): each["metrics"]["accuracy"] for name, each in record("zoo").items()}
    speed = {each["attention"]: each for each in record("bench_zoo")["rows"]}
    assert set(quality) | set(speed) == {*STUDENTS, "performer-learned"}
    for name in set(quality) | set(speed):
        cells = row(name)[1:]
        if name in quality:
            kept = quality[name]["retention"]["mean_of_ratios"]
            interval = f"{percent(kept['value'])} % [{percent(kept['low'])}, {percent(kept['high'])}]"
            assert cells[:2] == [percent(quality[name]["student"]["mean"]), interval]
        else:
            assert cells[:3] == ["-"] * 3
        if name in speed:
            points = speed[name]["student"]
            assert [point["length"] for point in points] == [128, 512, 2048]
            expected = [f"{point['speedup']:.2f} [{point['low']:.2f}, {point['high']:.2f}]" for point in points]
            exponents = (speed[name][f"{what}_exponent"] for what in ("time", "memory"))
            expected.append(f"{points[-1]['megabytes']:.0f}")
            assert cells[3:] == [*expected, *("-" if value is None else f"{value:.2f}" for value in exponents)]
        else:
            assert cells[3:] == ["-"] * 6


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
    section = README.partition("## The mechanisms")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*$", section, re.M)]
    assert {cells[0].strip("`") for cells in rows} == set(ATTENTIONS)
    for name, _, _, maps, options in rows:
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
