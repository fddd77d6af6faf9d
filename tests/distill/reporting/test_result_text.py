"""The tables of language models render from what records there are."""

import json

from distill.reporting.result_records import Records
from distill.reporting.result_text import (
    LAYERS,
    LENGTHS,
    MECHANISMS,
    language_model_steps,
    language_model_windows,
    language_models,
    language_models_distilled,
)

ENVIRONMENT = {"cpu": "a processor", "threads": 2, "commit": "0123456789"}


def write(folder, name, content):
    (folder / "language_models").mkdir(exist_ok=True)
    (folder / "language_models" / f"{name}.json").write_text(json.dumps(content))


def cells(table, mechanism):
    (row,) = [line for line in table if line.startswith(f"| `{mechanism}` |")]
    return [cell.strip() for cell in row.split("|")[2:-1]]


def test_without_records_every_cell_is_empty(tmp_path):
    for render in (language_models, language_model_steps, language_model_windows):
        table = render(Records(tmp_path))
        assert all(set(cells(table, name)) == {"-"} for name in MECHANISMS)
        assert table[-1].endswith("Not run yet: there is no record.")


def test_bits_stand_under_their_depth_and_length(tmp_path):
    metrics = {"bits_per_character": 2.345, "loss": 1.5}
    bits = {"metrics": metrics, "max_length": 512, "unigram_loss": 3.0, "environment": ENVIRONMENT}
    later = bits | {"max_length": 128, "environment": ENVIRONMENT | {"commit": "9876543210"}}
    write(tmp_path, "summary", {"text-linear-4x512": bits, "text-linear-4x128": later})
    table = language_models(Records(tmp_path))
    place = [(layers, length) for layers in LAYERS for length in LENGTHS].index((4, 512))
    assert cells(table, "linear")[place] == "2.35" or cells(table, "linear")[place] == "2.34"
    assert set(cells(table, "softmax")) == {"-"}
    (floor,) = [line for line in table if line.startswith("| every byte by its frequency |")]
    assert [cell.strip() for cell in floor.split("|")[2:-1]] == ["4.69", "4.69", "-"] * 3
    assert table[-1] == "On a processor, 2 threads, commit 0123456 and commit 9876543."


def test_steps_stand_under_their_depth_and_length(tmp_path):
    points = [timed(layers, length) for layers in (2, 4) for length in LENGTHS]
    exponents = {"linear-4": {"milliseconds": 0.01, "activation_megabytes": None}}
    write(tmp_path, "steps", {"points": points, "exponents": exponents, "environment": ENVIRONMENT})
    found = cells(language_model_steps(Records(tmp_path)), "linear")
    assert found == ["256", "1024", "4096", "512", "2048", "8192", "-", "-", "-", "-", "0.01", "-"]


def test_memory_and_single_windows_are_of_four_layers(tmp_path):
    points = [timed(layers, length) for layers in (2, 4) for length in LENGTHS]
    exponents = {"linear-4": {"milliseconds": None, "activation_megabytes": 1.25}}
    write(tmp_path, "steps", {"points": points, "exponents": exponents})
    write(tmp_path, "windows", {"points": points[:4], "environment": ENVIRONMENT})
    found = cells(language_model_windows(Records(tmp_path)), "linear")
    assert found == ["1280", "5120", "20480", "1.25", "512", "-", "-"]


def test_distilled_models_stand_beside_their_teacher_and_the_text_alone(tmp_path):
    def run(unit, bits):
        metrics = {"loss": 1.0, "perplexity": 1234.567, "bits_per_character": bits}
        kept = {"loss": {"value": 0.9, "low": 0.85, "high": 0.95}}
        both = {"metrics": metrics, "teacher": metrics | {"bits_per_character": 1.0}, "text_alone": metrics}
        return both | {
            "text_unit": unit,
            "unknown_share": 0.015,
            "attention": "linear",
            "retention": kept,
            "text_alone_retention": {},
            "environment": ENVIRONMENT,
        }

    write(tmp_path, "distilled", {"a": run("word", 2.0)})
    write(tmp_path, "distilled_bytes", {"b": run("byte", 3.0)})
    table = language_models_distilled(Records(tmp_path))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[2:-2]]
    assert rows == [
        ["bytes", "1.5", "teacher, softmax", "1,234.57", "1.00", "-"],
        ["bytes", "1.5", "`linear`, text alone", "1,234.57", "3.00", "-"],
        ["bytes", "1.5", "`linear`, distilled", "1,234.57", "3.00", "90.0 [85.0, 95.0]"],
        ["words", "1.5", "teacher, softmax", "1,234.57", "1.00", "-"],
        ["words", "1.5", "`linear`, text alone", "1,234.57", "2.00", "-"],
        ["words", "1.5", "`linear`, distilled", "1,234.57", "2.00", "90.0 [85.0, 95.0]"],
    ]


def timed(layers, length):
    step = {"milliseconds": layers * length, "activation_megabytes": 10 * length}
    return {"model": "linear", "layers": layers, "length": length, **step}
