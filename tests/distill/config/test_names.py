"""Names of columns and classes are taken as they are written, in files and on every command line."""

import argparse
import json

import pytest

from distill.config.data_options import add_data_options, data_options
from distill.config.parsing import load_config, parse_config, save_config
from distill.sweeps.schema import parse_sweep
from distill.utils.errors import UserError


def parse(*arguments):
    """Return what distill.py reads."""
    return parse_config(["--task", "custom", "--data.dir", "x", *arguments]).data


def parse_options(*arguments):
    """Return what compare.py and export.py read."""
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    return data_options(parser.parse_args(arguments), "custom")


WRITTEN = {
    ("[no, yes]",): ["no", "yes"],
    ("no", "yes"): ["no", "yes"],
    ("[1, 2]",): ["1", "2"],
    ("-1", "0", "1.0"): ["-1", "0", "1.0"],
    ("[on, OFF, ~, null, 2024-01-01, 0x1F, 1e3]",): ["on", "OFF", "~", "null", "2024-01-01", "0x1F", "1e3"],
    ("['a, b', \"c: d\", e f]",): ["a, b", "c: d", "e f"],
    ("[a,\u00e4]",): ["a", "\u00e4"],
}


@pytest.mark.parametrize("values", WRITTEN)
def test_lists_of_names(tmp_path, values):
    expected = WRITTEN[values]
    assert parse("--data.label_names", *values, "--seed", "1").label_names == expected
    assert parse_options("--data.label_names", *values)["label_names"] == expected
    if len(values) == 1:
        assert parse(f"--data.label_names={values[0]}").label_names == expected
        (tmp_path / "a.yaml").write_text(f"task: custom\ndata:\n  dir: x\n  label_names: {values[0]}\n", "utf-8")
        config = parse_config(["--config", str(tmp_path / "a.yaml")])
        assert config.data.label_names == expected
        save_config(config, tmp_path / "saved.yaml")
        assert load_config(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["text"], ["text"]), (["no"], ["no"]), (["[a]"], ["a"]), (["[a, 1]"], ["a", "1"]), (["a", "b"], ["a", "b"])],
)
def test_text_columns(tmp_path, values, expected):
    assert parse("--data.text_columns", *values).text_columns == expected
    assert parse_options("--data.text_columns", *values)["text_columns"] == expected
    written = values[0] if len(values) == 1 else json.dumps(values)
    (tmp_path / "a.yaml").write_text(f"task: custom\ndata: {{dir: x, text_columns: {written}}}\n")
    assert parse_config(["--config", str(tmp_path / "a.yaml")]).data.text_columns == expected


def test_a_label_column_may_be_called_anything(tmp_path):
    (tmp_path / "a.yaml").write_text("task: custom\ndata: {dir: x, label_column: 1}\n")
    assert parse_config(["--config", str(tmp_path / "a.yaml")]).data.label_column == "1"
    assert parse("--data.label_column", "no").label_column == "no"


def test_null_names_nothing():
    data = parse("--data.label_names", "null", "--data.text_columns=null")
    assert (data.label_names, data.text_columns) == (None, None)


@pytest.mark.parametrize("written", ["{a: b}", "[[a], b]", "[{a: 1}]"])
def test_what_is_no_list_of_names_is_refused(tmp_path, written):
    (tmp_path / "a.yaml").write_text(f"task: custom\ndata:\n  dir: x\n  label_names: {written}\n")
    with pytest.raises(UserError, match=r"data\.label_names"):
        parse_config(["--config", str(tmp_path / "a.yaml")])


def test_a_sweep_reads_them_alike(tmp_path):
    (tmp_path / "a.yaml").write_text("task: custom\n")
    (tmp_path / "sweep.yaml").write_text(
        f"dir: {tmp_path}\nconfigs: [{tmp_path / 'a.yaml'}]\n"
        "students: {one: {data.text_columns: no}}\noverrides: {data.label_names: [no, yes]}\n"
    )
    sweep = parse_sweep(["--config", str(tmp_path / "sweep.yaml")])
    assert sweep.overrides == {"data.label_names": ["no", "yes"]}
    assert sweep.students == {"one": {"data.text_columns": ["no"]}}
    given = ["--config", str(tmp_path / "sweep.yaml"), "--overrides.data.label_names", "[off, on]"]
    assert parse_sweep(given).overrides == {"data.label_names": ["off", "on"]}


@pytest.mark.parametrize(("values", "expected"), [([], True), (["true"], True), (["false"], False), (["True"], True)])
def test_switches_are_written_as_in_a_file(values, expected):
    given = parse_options("--data.drop_incomplete", *values, "--data.regression", *values)
    assert given == {"drop_incomplete": expected, "regression": expected}


def test_classes_from_python_are_texts():
    from distill.config.data_schema import DataConfig

    assert DataConfig(label_names=[1, " b "]).label_names == ["1", "b"]  # type: ignore[list-item]
