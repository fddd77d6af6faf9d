"""Shared fixtures: offline, few threads, and skips that say why."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DISTILL_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    for item in items:
        if item.get_closest_marker("real") and not (SHARED / "models").is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no real data and encoder in {SHARED}; set DISTILL_SHARED"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("network") and os.environ["HF_HUB_OFFLINE"] == "1":
            item.add_marker(pytest.mark.skip(reason="offline; run with HF_HUB_OFFLINE=0"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and the real encoder."""
    return SHARED
