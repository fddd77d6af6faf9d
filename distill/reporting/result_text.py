"""The tables of language models: what they predict, and what a training step costs, each rendered from records."""

from collections.abc import Mapping
from typing import Any

from distill.evaluation.record_parts import Interval
from distill.reporting.result_records import Records, interval, markdown_table, measured_on, percent

MECHANISMS = ("softmax", "transformer_xl", "sparse", "compressive", "reformer", "linear", "performer")
LENGTHS, LAYERS = (128, 512, 2048), (2, 4, 8)
TIMED_LAYERS = 4
MISSING = "-"


def language_models(records: Records) -> list[str]:
    """Bits per character after one pass over the text, by mechanism, length and depth."""
    found = records.find("language_models/summary")
    sizes = [(layers, length) for layers in LAYERS for length in LENGTHS]
    rows = [
        [f"`{name}`", *(_bits(found.get(f"text-{name}-{layers}x{length}")) for layers, length in sizes)]
        for name in MECHANISMS
    ]
    floors = [
        next((_unigram(each) for each in found.values() if each["max_length"] == length), MISSING)
        for _, length in sizes
    ]
    rows.append(["every byte by its frequency", *floors])
    heads = [f"{layers} layers, {length} tokens" for layers, length in sizes]
    return [
        *markdown_table(["bits per character", *heads], rows),
        "",
        measured_on(*(run["environment"] for run in found.values())),
    ]


def language_model_steps(records: Records) -> list[str]:
    """Milliseconds of a training step of as many tokens, by length and depth, and how the time of a token grows."""
    timed = records.find("language_models/steps")
    rows = []
    for name in MECHANISMS:
        times = [cell for layers in LAYERS for cell in _cells(timed, name, layers, "milliseconds")]
        growth = [_growth(timed, name, layers, "milliseconds") for layers in LAYERS]
        rows.append([f"`{name}`", *times, *growth])
    heads = [f"{layers} layers, {length} tokens" for layers in LAYERS for length in LENGTHS]
    heads += [f"{layers} layers: time of a token ~N^" for layers in LAYERS]
    return [*markdown_table(["ms a step", *heads], rows), "", measured_on(timed.get("environment"))]


def language_model_windows(records: Records) -> list[str]:
    """Memory that a training step keeps, of as many tokens, and the time of a step of one window, by length."""
    same_tokens, same_windows = (records.find(f"language_models/{kind}") for kind in ("steps", "windows"))
    rows = [
        [
            f"`{name}`",
            *_cells(same_tokens, name, TIMED_LAYERS, "activation_megabytes"),
            _growth(same_tokens, name, TIMED_LAYERS, "activation_megabytes"),
            *_cells(same_windows, name, TIMED_LAYERS, "milliseconds"),
        ]
        for name in MECHANISMS
    ]
    memory = [f"MB a step, {length} tokens" for length in LENGTHS]
    windows = [f"ms of one window of {length}" for length in LENGTHS]
    table = markdown_table([f"{TIMED_LAYERS} layers", *memory, "memory of a token ~N^", *windows], rows)
    conditions = [measured_on(record.get("environment")) for record in (same_tokens, same_windows)]
    return [*table, "", f"Memory: {conditions[0]} Windows: {conditions[1]}"]


def language_models_distilled(records: Records) -> list[str]:
    """Perplexity of students from the text alone and distilled, by unit of the text and mechanism."""
    found = records.find("language_models/distilled") | records.find("language_models/distilled_bytes")
    units = sorted({run["text_unit"] for run in found.values()})
    rows = []
    for unit in units:
        runs = [run for run in found.values() if run["text_unit"] == unit]
        text = [f"{unit}s", percent(runs[0]["unknown_share"])]
        rows.append([*text, "teacher, softmax", *_predicts(runs[0]["teacher"]), MISSING])
        for run in runs:
            name = f"`{run['attention']}`"
            rows.append([*text, f"{name}, text alone", *_predicts(run["text_alone"]), _kept(run, "text_alone_")])
            rows.append([*text, f"{name}, distilled", *_predicts(run["metrics"]), _kept(run, "")])
    heads = ["text in", "unknown, %", "model", "perplexity", "bits per character", "teacher's loss / own, % [95 %]"]
    return [*markdown_table(heads, rows), "", measured_on(*(run["environment"] for run in found.values()))]


def _predicts(metrics: Mapping[str, float]) -> list[str]:
    return [f"{metrics['perplexity']:,.2f}", f"{metrics['bits_per_character']:.2f}"]


def _kept(run: Mapping[str, Any], kind: str) -> str:
    found = run[f"{kind}retention"].get("loss")
    return MISSING if found is None else interval(Interval(found["value"], found["low"], found["high"]))


def _cells(record: Mapping[str, Any], name: str, layers: int, key: str) -> list[str]:
    timed = [each for each in record.get("points", ()) if (each["model"], each["layers"]) == (name, layers)]
    by_length = {each["length"]: each[key] for each in timed}
    return [MISSING if by_length.get(each) is None else f"{by_length[each]:.0f}" for each in LENGTHS]


def _growth(record: Mapping[str, Any], name: str, layers: int, key: str) -> str:
    return _exponent(record.get("exponents", {}).get(f"{name}-{layers}", {}).get(key))


def _bits(summary: Mapping[str, Any] | None) -> str:
    return MISSING if summary is None else f"{summary['metrics']['bits_per_character']:.2f}"


def _unigram(summary: Mapping[str, Any]) -> str:
    """Return the bits per character of the loss of predicting every token by how often it occurs in train."""
    metrics = summary["metrics"]
    return f"{metrics['bits_per_character'] * summary['unigram_loss'] / metrics['loss']:.2f}"


def _exponent(value: float | None) -> str:
    return MISSING if value is None else f"{value:z.2f}"
