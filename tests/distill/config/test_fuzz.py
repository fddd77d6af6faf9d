"""Whatever stands in a configuration or a data file, it is read or refused in one line."""

import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.config.data_schema import DataConfig
from distill.config.parsing import parse_config
from distill.config.schema import Config, TeacherConfig
from distill.config.validation import check_config
from distill.data.splits import Splits, load_splits
from distill.tasks import TASKS
from distill.utils.errors import UserError
from students import STUDENTS

FUZZ = settings(
    derandomize=True,  # no run is luck
    database=None,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

STAGE = {"name": "one", "epochs": 1, "learning_rate": 0.001, "losses": {"logits": 1.0}}
KEYS = st.sampled_from(
    [*vars(Config("sst2", stages=())), *vars(DataConfig()), *vars(TeacherConfig()), *STAGE, "class_path"]
)
ODD = st.sampled_from(
    ["sst2", "custom", "", "null", "~", "-", "1e-3", "[", "{", "*a", "&a", "!!python/name:os.system", "a.b"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | ODD
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(".".join)


def read_or_refuse(arguments: list[str]) -> None:
    """Parse a command line: a checked configuration comes out, or one line."""
    try:
        check_config(parse_config(arguments, STUDENTS), STUDENTS)
    except UserError as error:
        message = str(error)
    else:
        return
    assert message
    assert "\n" not in message


@FUZZ
@given(text=st.text(max_size=60))
def test_any_text_as_a_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "any.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    read_or_refuse(["--config", str(tmp_path / "any.yaml")])


@FUZZ
@given(values=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_values_as_a_configuration(values: dict[str, object], tmp_path: Path) -> None:
    good = {"task": "sst2", "stages": [STAGE]}
    (tmp_path / "any.yaml").write_text(yaml.safe_dump(good | values))
    read_or_refuse(["--config", str(tmp_path / "any.yaml")])


@FUZZ
@given(
    key=DOTTED,
    value=st.text(st.characters(exclude_characters="\0"), max_size=12) | VALUES.map(str) | VALUES.map(json.dumps),
)
def test_any_override(key: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(yaml.safe_dump({"task": "sst2", "stages": [STAGE]}))
    read_or_refuse(["--config", str(tmp_path / "good.yaml"), f"--{key}={value}"])


FRAME = pd.DataFrame({"sentence": [f'text {row}, "quoted" ünï' for row in range(30)], "label": [0, 1] * 15})


def encoded(frame: pd.DataFrame, extension: str) -> bytes:
    """Return a table in the format of an extension."""
    if extension == "parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer)
        return buffer.getvalue()
    if extension == "jsonl":
        return frame.to_json(orient="records", lines=True).encode()
    return frame.to_csv(index=False, sep="\t" if extension == "tsv" else ",").encode()


def load_or_refuse(content: bytes, extension: str, folder: Path) -> Splits | None:
    """Read a train file: checked examples come out, or one line that names it."""
    (folder / "sst2").mkdir(exist_ok=True)
    (folder / "sst2" / f"train.{extension}").write_bytes(content)
    (folder / "sst2" / "validation.csv").write_bytes(encoded(FRAME, "csv"))
    try:
        splits = load_splits(TASKS["sst2"], source=str(folder), seed=0, max_train_examples=None, held_out_fraction=0.1)
    except UserError as error:
        splits, message = None, str(error)
    if splits is None:
        assert "train" in message
        assert "\n" not in message
        return None
    for (text,) in splits.train.texts:
        text.encode()
    assert set(splits.train.labels) <= {0, 1}
    return splits


FORMATS = ("csv", "tsv", "jsonl", "parquet")


@pytest.mark.parametrize("extension", FORMATS)
@FUZZ
@given(content=st.binary(max_size=200) | st.text('sentence,label\t\n"{}:01', max_size=60).map(str.encode))
def test_any_bytes_as_a_data_file(extension: str, content: bytes, tmp_path: Path) -> None:
    load_or_refuse(content, extension, tmp_path)


@pytest.mark.parametrize("extension", FORMATS)
@FUZZ
@given(data=st.data())
def test_any_damage_to_a_data_file(extension: str, data: st.DataObject, tmp_path: Path) -> None:
    """Some bytes of a good file are replaced, put in or lost, at any place."""
    content = encoded(FRAME, extension)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        lost = data.draw(st.integers(0, 40))
        content = content[:start] + data.draw(st.binary(max_size=10)) + content[start + lost :]
    load_or_refuse(content, extension, tmp_path)


CELLS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@FUZZ
@given(
    rows=st.lists(
        st.fixed_dictionaries({"sentence": st.text(max_size=9) | CELLS, "label": st.sampled_from([0, 1]) | CELLS}),
        max_size=6,
    )
)
def test_any_cells(rows: list[dict[str, object]], tmp_path: Path) -> None:
    load_or_refuse("\n".join(map(json.dumps, rows)).encode(), "jsonl", tmp_path)


@FUZZ
@given(
    cells=st.lists(CELLS, min_size=2, max_size=4),
    kind=st.sampled_from(
        [pa.string(), pa.large_string(), pa.binary(), pa.float32(), pa.uint64(), pa.bool_(), pa.date32()]
    ),
)
def test_any_column_of_parquet(cells: list[object], kind: pa.DataType, tmp_path: Path) -> None:
    try:
        labels = pa.array(cells, kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return  # not a column that anybody could have written
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table({"sentence": ["a"] * len(labels), "label": labels}), buffer)
    load_or_refuse(buffer.getvalue(), "parquet", tmp_path)


def test_what_is_fuzzed_is_good_before_it_is_damaged(tmp_path: Path) -> None:
    for number, extension in enumerate(FORMATS):
        (tmp_path / str(number)).mkdir()
        splits = load_or_refuse(encoded(FRAME, extension), extension, tmp_path / str(number))
        assert splits is not None
        assert len(splits.train) + len(splits.held_out) == len(FRAME)
