"""The demo does not hang on luck: a record per seed and precision, and this checkout's own run if there is one."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "notebooks" / "records" / "demo"
RECORDS = [FOLDER / f"{precision}-{seed}.json" for precision in ("no", "bf16") for seed in range(42, 47)]
TEACHER, KEPT, GAIN = 0.90, 0.97, 0.05


def check(record: dict) -> None:
    """Hold a record of the demo against what it promises."""
    assert record["task"] == "sst2"
    assert record["source"] == "embedded"
    assert record["models"]["teacher"]["metrics"]["accuracy"] >= TEACHER
    assert record["retention"]["accuracy"]["value"] >= KEPT
    assert record["gain"]["accuracy"]["value"] >= GAIN


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_seed_in_both_precisions(path: Path) -> None:
    record = json.loads(path.read_text())
    check(record)
    precision, seed = path.stem.split("-")
    assert record["seed"] == int(seed)
    assert record["environment"]["training_precision"] == precision
    assert "--config configs/demo.yaml" in record["environment"]["command"]
    assert not record["environment"]["dirty"]


def test_run_of_this_checkout() -> None:
    path = ROOT / "runs" / "demo" / "record.json"
    if not path.exists():
        pytest.skip("make demo has not been run in this checkout")
    check(json.loads(path.read_text()))
