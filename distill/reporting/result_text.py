"""The tables of language models: what they predict, and what a training step costs, each rendered from records."""

from collections.abc import Mapping
from typing import Any

from distill.reporting.result_records import Records, markdown_table, measured_on

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
    some: Mapping[str, Any] = next(iter(found.values()), {})
    return [*markdown_table(["bits per character", *heads], rows), "", measured_on(some.get("environment"))]


def language_model_steps(records: Records) -> list[str]:
    """Milliseconds of a training step, of as many tokens and of one window, by length, and how they grow."""
    same_tokens, same_windows = (records.find(f"language_models/{kind}") for kind in ("steps", "windows"))
    rows = []
    for name in MECHANISMS:
        fitted = same_tokens.get("exponents", {}).get(f"{name}-{TIMED_LAYERS}", {})
        growth = [_exponent(fitted.get(key)) for key in ("milliseconds", "activation_megabytes")]
        rows.append([f"`{name}`", *_times(same_tokens, name), *growth, *_times(same_windows, name)])
    tokens = [f"{length} tokens" for length in LENGTHS]
    heads = [*tokens, "time of a token ~N^", "memory of a token ~N^", *(f"one window of {each}" for each in LENGTHS)]
    title = f"ms a step, {TIMED_LAYERS} layers"
    return [*markdown_table([title, *heads], rows), "", measured_on(same_tokens.get("environment"))]


def _times(record: Mapping[str, Any], name: str) -> list[str]:
    timed = [each for each in record.get("points", ()) if (each["model"], each["layers"]) == (name, TIMED_LAYERS)]
    by_length = {each["length"]: each["milliseconds"] for each in timed}
    return [MISSING if by_length.get(each) is None else f"{by_length[each]:.0f}" for each in LENGTHS]


def _bits(summary: Mapping[str, Any] | None) -> str:
    return MISSING if summary is None else f"{summary['metrics']['bits_per_character']:.2f}"


def _unigram(summary: Mapping[str, Any]) -> str:
    """Return the bits per character of the loss of predicting every token by how often it occurs in train."""
    metrics = summary["metrics"]
    return f"{metrics['bits_per_character'] * summary['unigram_loss'] / metrics['loss']:.2f}"


def _exponent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"
