"""README's results, at its top and of long documents and levers, are those of the records beside it."""

import math
from statistics import mean

from helpers.readme import MAIN_METRICS, README, kept, percent, record, table

from distill.sweeps.leaderboard import pareto_front

FIVE_TASKS = ("sst2", "cola", "mrpc", "stsb", "rte")
SEEDS = (42, 43, 44)
STUDENTS_OF_THE_RECIPE = {
    "6 layers, ABC": "abc-6",
    "6 layers, Performer": "performer-6",
    "4 layers, ABC": "abc-4",
    "3 layers, Performer": "performer-3",
    "3 layers, ABC": "abc-3",
}


def interval(found: dict[str, float]) -> str:
    return "{value} [{low}, {high}]".format(**{key: percent(found[key]) for key in ("value", "low", "high")})


def mean_of_tasks(found: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of ratios whose errors are independent, with the interval that they leave it."""
    value = mean(each["value"] for each in found)
    down, up = (
        math.sqrt(sum((each[end] - each["value"]) ** 2 for each in found)) / len(found) for end in ("low", "high")
    )
    return {"value": value, "low": value - down, "high": value + up}


def of_the_table(task: str, student: str) -> dict:
    """Return the cell of the result table: with altered copies where that was measured apart."""
    found = record("retention")
    return found.get(f"{task}-{student}-copies") or found[f"{task}-{student}"]


def softmax_share(task: str, seed: int) -> float:
    """Return what Performer's student had kept before it became linear."""
    run = record(name_of(f"{task}-performer-3", seed))
    softmax = next(each["metrics"][MAIN_METRICS[task]] for each in run["stages"] if each["name"] == "depth_logits")
    return softmax / run["models"]["teacher"]["metrics"][MAIN_METRICS[task]]


def name_of(cell: str, seed: int) -> str:
    return f"retention-{cell}" if seed == SEEDS[0] else f"retention-{cell}-seed{seed}"


def test_the_result_table_is_what_the_records_say():
    rows, found = table("| student of a six-layer teacher |"), record("retention")
    for name, student in STUDENTS_OF_THE_RECIPE.items():
        shares = [kept(of_the_table(task, student)) for task in FIVE_TASKS]
        assert rows[name][2:] == [interval(share) for share in shares]
        value, _, rest = interval(mean_of_tasks(shares)).partition(" ")
        assert rows[name][0] == f"**{value}** {rest}"
    shares = [mean(softmax_share(task, seed) for seed in SEEDS) for task in FIVE_TASKS]
    assert rows["3 layers, softmax"] == [percent(mean(shares)), "control", *(percent(share) for share in shares)]
    teachers = [found[f"{task}-performer-3"]["metrics"][MAIN_METRICS[task]]["teacher"]["mean"] for task in FIVE_TASKS]
    cells = rows["the teacher itself"][2:]
    assert [cell.split()[0] for cell in cells] == [percent(each) for each in teachers]
    aims = [float(cell.rstrip(")").split()[-1]) for cell in cells]
    missed = [f"{aim - 100 * each:.1f}" for aim, each in zip(aims, teachers, strict=True)]
    sentence = "by {} (SST-2), {} (CoLA), {} (MRPC), {} (STS-B) and {} points (RTE)."
    assert sentence.format(*missed) in " ".join(README.split())


def test_what_abc_keeps_of_five_tasks_is_what_the_records_say():
    found = record("retention")
    abc, performer = (
        percent(mean(kept(found[f"{task}-{student}"])["value"] for task in FIVE_TASKS))
        for student in ("abc-3", "performer-3")
    )
    softmax = percent(mean(softmax_share(task, 42) for task in FIVE_TASKS))
    sentence = (
        f"over the five tasks it keeps {abc} % with seed 42, its softmax students {softmax} (aim: within a point of "
        f"them), Performer over three seeds {performer}."
    )
    text = " ".join(README.split())
    assert sentence in text
    assert f"ABC by the same recipe keeps {abc} (one seed)" in text


def test_what_cola_adds_to_four_layers_is_what_the_records_say():
    found = record("retention")
    low, high = (kept(found["cola-abc-4"])[end] for end in ("low", "high"))
    without = mean(kept(found[f"{task}-abc-4"])["value"] for task in FIVE_TASKS if task != "cola")
    sentence = f"whose interval is {100 * (high - low):.0f} points wide, it keeps {percent(without)} %."
    assert sentence in README


def test_long_documents_are_what_the_records_say():
    run, whole, first = (record(f"imdb-{name}") for name in ("performer-4", "whole", "first-512"))
    teacher, student = (percent(run["models"][role]["metrics"]["accuracy"]) for role in ("teacher", "student"))
    rows = table("| 1,000 long reviews |")
    points = {point["length"]: point for point in whole["speed"]}
    at_2048 = points[2048]
    assert rows["teacher, first 512 tokens"][0] == percent(first["models"]["teacher"]["metrics"]["accuracy"])
    assert rows["teacher, all in windows of 512"] == [
        *(teacher, "100"),
        *(f"{points[length]['teacher_ms']:.0f}" for length in (1024, 2048)),
        "1",
    ]
    assert rows["student, 4 layers, Performer, 2,048 at once"] == [
        f"**{student}**",
        interval(run["retention"]["accuracy"]),
        *(f"{points[length]['student_ms']:.0f}" for length in (1024, 2048)),
        f"{at_2048['speedup']:.2f} [{at_2048['low']:.2f}, {at_2048['high']:.2f}]",
    ]
    assert at_2048["teacher_windows"] > 1
    text = " ".join(README.split())
    pairs = record("imdb-against-first-512")
    assert (
        "wrong {only_second} times, wrong where they are right {only_first} times, p = {p:.2f}".format(**pairs) in text
    )
    whole_reviews = "on {num_examples} of the reviews themselves it is {speedup:.2f} [{low:.2f}, {high:.2f}] times"
    assert whole_reviews.format(**whole["throughput"]) in text


def lever_on(found: dict[str, dict], cell: str) -> list[str]:
    """Return the README's three cells of one student of the ablation on one task."""
    summary = found[cell]
    gain = summary.get("over_reference")
    ends = [100 * gain[end] for end in ("value", "low", "high")] if gain else []
    return [
        percent(summary["metrics"][summary["main_metric"]]["student"]["mean"]),
        "{:+.1f} [{:.1f}, {:.1f}]".format(*ends) if ends else "",
        f"{summary['kl_to_teacher']:.3f}",
    ]


def test_the_table_of_levers_is_what_the_record_says():
    found = record("ablation")
    rows = table("| student | different from `recipe` |")
    students = [name.strip("`") for name in rows]
    assert set(found) == {f"{task}-{student}" for task in ("cola", "mrpc") for student in students}
    for student in students:
        on_both = [*lever_on(found, f"cola-{student}"), *lever_on(found, f"mrpc-{student}")]
        assert rows[f"`{student}`"][1:] == on_both


def test_what_the_levers_do_on_mrpc_is_what_the_record_says():
    found = record("ablation")
    apart = {
        cell: gain["high"]
        for cell, summary in found.items()
        if (gain := summary.get("over_reference")) and not gain["low"] <= 0 <= gain["high"]
    }
    assert set(apart) == {"mrpc-context", "mrpc-value_relations", "mrpc-slow_features", "mrpc-annealed"}
    assert max(apart.values()) < 0
    recipe, one_softmax, softmax, copies, abc = (
        f"{found[f'mrpc-{student}']['kl_to_teacher']:.2f}"
        for student in ("recipe", "one_softmax", "softmax", "copies", "abc")
    )
    text = " ".join(README.split())
    cola, mrpc = (percent(kept(found[f"{task}-recipe"])["value"]) for task in ("cola", "mrpc"))
    assert f"`recipe` keeps {cola} % of CoLA's teacher here and {mrpc} % of MRPC's" in text
    assert f"falls from {recipe} to {one_softmax} with one more exact layer" in text
    assert f"softmax everywhere ({softmax}), to {copies} with `copies`, to {abc} with ABC" in text


def grid_speed(student: str, length: int) -> float:
    points = {point["length"]: point for point in record(f"speed-{student}")["speed"]}
    return points[length]["speedup"]


def test_the_table_of_the_grid_is_what_the_records_say():
    found, rows = record("front"), table("| student of the grid |")
    students = [name.strip("`") for name in rows]
    assert {f"{task}-{student}" for task in ("sst2", "mrpc") for student in students} == set(found)
    fronts = {
        task: pareto_front(
            {student: (grid_speed(student, 2048), kept(found[f"{task}-{student}"])["value"]) for student in students}
        )
        for task in ("sst2", "mrpc")
    }
    for student in students:
        cells = []
        for task in ("sst2", "mrpc"):
            value, _, rest = interval(kept(found[f"{task}-{student}"])).partition(" ")
            cells.append(f"**{value}** {rest}" if student in fronts[task] else f"{value} {rest}")
        speeds = [f"{grid_speed(student, length):.2f}" for length in (512, 2048)]
        assert rows[f"`{student}`"] == [*cells, *speeds]


def test_what_four_layers_and_learned_features_bring_is_what_the_records_say():
    found = {cell: kept(summary)["value"] for cell, summary in record("front").items()}
    softmax, performer = (
        [percent(1 - found[f"{task}-{student}-4"]) for task in ("sst2", "mrpc")]
        for student in ("softmax", "performer")
    )
    speeds = [f"{grid_speed(f'{student}-4', 2048):.2f}" for student in ("performer", "softmax")]
    text = " ".join(README.split())
    assert "softmax loses {} points of SST-2 and {} of MRPC;".format(*softmax) in text
    assert "of four layers {} and {}, and is".format(*performer) in text
    assert "is {} times as fast at 2,048 tokens, softmax {}.".format(*speeds) in text
    gains = {
        (task, layers): percent(found[f"{task}-performer-{layers}"] - found[f"{task}-performer-fixed-{layers}"])
        for task in ("sst2", "mrpc")
        for layers in (6, 4, 3, 2)
    }
    assert {pair for pair, gain in gains.items() if float(gain) < 0} == {("mrpc", 6), ("sst2", 2)}
    assert f"most at four layers ({gains['sst2', 4]} and {gains['mrpc', 4]} points)" in text


def test_what_linear_attention_costs_three_layers_is_what_the_records_say():
    found, text = record("retention"), " ".join(README.split())
    softmax = {task: mean(softmax_share(task, seed) for seed in SEEDS) for task in FIVE_TASKS}
    performer = {task: kept(found[f"{task}-performer-3"])["value"] for task in FIVE_TASKS}
    costs = [percent(softmax[task] - performer[task]) for task in FIVE_TASKS]
    means = [percent(mean(shares.values())) for shares in (performer, softmax)]
    assert (
        "(aim 97) keeps {} over three seeds; its speeds reach their aims. Its softmax students keep {}, ".format(
            *means
        )
        in text
    )
    assert "{} points of SST-2, {} of CoLA, {} of MRPC, {} of STS-B and {} of RTE.".format(*costs) in text
    low, high = (kept(found["cola-performer-3"])[end] for end in ("low", "high"))
    lost, wide = percent(1 - softmax["cola"]), f"{100 * (high - low):.0f}"
    assert f"loses {lost} points before attention changes, and Performer's interval is {wide} wide" in text
    cola, mrpc = (percent(performer[task]) for task in ("cola", "mrpc"))
    assert f"the same stages keep {cola} and, with copies, {mrpc}." in text
    assert f"twice the epochs Performer keeps {mrpc} (top of this page)" in text


def test_what_copies_and_features_bring_is_what_the_records_say():
    names = ("retention-stsb-performer-3", "stsb-performer-3-without-copies", "stsb-performer-3-features-by-layer")
    stsb = [percent(record(name)["retention"]["pearson"]["value"]) for name in names]
    names = ("cola-performer-3-with-copies", "retention-cola-performer-3")
    cola = [percent(record(name)["retention"]["matthews_correlation"]["value"]) for name in names]
    text = " ".join(README.split())
    assert "seed 42 keeps {} % of STS-B, without them {}; with 32 and 384 features".format(*stsb) in text
    assert f"instead of 256 in both {stsb[2]} (no copies)" in text
    assert "On CoLA copies lose: {} instead of {}.".format(*cola) in text
    first = record("speed-performer-3-xeon")["speed"][0]
    assert "had {speedup:.2f} [{low:.2f}, {high:.2f}] at 128".format(**first) in text


def test_the_summary_of_the_result_table_is_that_of_the_records_beside_it():
    for cell, summary in record("retention").items():
        metric = summary["main_metric"]
        for seed, kept_of_it in zip(summary["seeds"], summary["metrics"][metric]["retention"]["by_seed"], strict=True):
            run = record(name_of(cell, seed))
            assert run["seed"] == seed
            assert run["retention"][metric]["value"] == kept_of_it["value"]


def test_what_seeds_change_is_what_the_records_say():
    found, text = record("retention"), " ".join(README.split())
    names = {"mrpc": "MRPC", "rte": "RTE", "cola": "CoLA", "stsb": "STS-B", "sst2": "SST-2"}
    for student, start in (("performer-6", "six layers keeps"), ("performer-3", "three layers")):
        parts = []
        for task, name in names.items():
            summary = found[f"{task}-{student}"]
            assert summary["seeds"] == list(SEEDS)
            by_seed = summary["metrics"][summary["main_metric"]]["retention"]["by_seed"]
            parts.append("{}, {} and {} of {}".format(*(percent(each["value"]) for each in by_seed), name))
        assert f"Performer of {start} {', '.join(parts)}" in text


def test_what_copies_bring_six_layers_is_what_the_records_say():
    found = record("retention")
    without = {task: kept(found[f"{task}-abc-6"])["value"] for task in FIVE_TASKS}
    copies = {task: kept(of_the_table(task, "abc-6"))["value"] for task in FIVE_TASKS}
    performer = percent(mean(kept(found[f"{task}-performer-6"])["value"] for task in FIVE_TASKS))
    means = [percent(mean(shares.values())) for shares in (copies, without)]
    text = " ".join(README.split())
    assert "of every pair ABC keeps {}, without them {}:".format(*means) in text
    for task, name in (("rte", "RTE"), ("mrpc", "MRPC"), ("stsb", "STS-B")):
        assert f"{name} {percent(copies[task])} instead of {percent(without[task])}" in text
    without_cola = mean(share for task, share in copies.items() if task != "cola")
    assert f"it keeps {percent(without_cola)}. Performer keeps {performer} over three seeds." in text


def test_the_speeds_of_the_recipe_are_what_the_records_say():
    rows = table("| times as fast |")
    for name, student in (
        ("6 layers, ABC", "abc-6"),
        ("6 layers, Performer", "performer-6"),
        ("3 layers, Performer", "performer-3"),
        ("4 layers, ABC", "abc-4"),
        ("3 layers, ABC", "abc-3"),
    ):
        points = record(f"speed-{student}")["speed"]
        assert rows[name] == ["{speedup:.2f} [{low:.2f}, {high:.2f}]".format(**point) for point in points]
    exact, linear = (
        [
            f"{point['speedup']:.2f}"
            for point in record(f"speed-performer-3{rest}")["speed"]
            if point["length"] in (128, 4096)
        ]
        for rest in ("-one-softmax", "")
    )
    ends = "is {} and {} times as fast at 128 and 4,096 tokens, not {} and {}".format(*exact, *linear)
    assert ends in " ".join(README.split())
    first = record("speed-performer-3")["speed"][0]
    assert f"Three softmax layers are {first['depth_speedup']:.2f} times as fast at 128 tokens" in " ".join(
        README.split()
    )
