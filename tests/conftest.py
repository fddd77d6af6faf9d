"""Shared fixtures: offline, few threads, and skips that say why."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from helpers.tiny_bert import tiny_bert
from transformers import BertForSequenceClassification

from distill.data.batching import TokenizedExamples

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DISTILL_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; files with long tests first, for workers to end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
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


@pytest.fixture
def make_bert() -> Callable[..., BertForSequenceClassification]:
    """Return a function that builds a BERT classifier of hidden size 32 with weights large enough to matter."""

    def make(
        num_layers: int = 2, num_labels: int = 2, seed: int = 0, **settings: object
    ) -> BertForSequenceClassification:
        sizes = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.2}
        return tiny_bert(seed, **sizes | settings, num_hidden_layers=num_layers, num_labels=num_labels)

    return make


@pytest.fixture
def make_examples() -> Callable[..., TokenizedExamples]:
    """Return a function that draws examples of 3 to 12 tokens, labelled by their second token."""

    def make(count: int = 20, seed: int = 0) -> TokenizedExamples:
        generator = np.random.default_rng(seed)
        offsets = np.concatenate([[0], np.cumsum(generator.integers(3, 13, count))])
        tokens = generator.integers(5, 60, offsets[-1]).astype(np.int32)
        tokens[offsets[:-1]] = 2
        labels = (tokens[offsets[:-1] + 1] > 32).astype(np.int64)
        types = (np.arange(len(tokens)) % 3 == 0).astype(np.uint8)
        return TokenizedExamples(tokens, types, offsets, labels, np.arange(count))

    return make


@pytest.fixture
def make_accelerator() -> Iterator[Callable[..., Accelerator]]:
    """Return a function that builds an Accelerator on the CPU; its shared state is forgotten before and after."""

    def forget() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    def make(**settings: object) -> Accelerator:
        forget()
        return Accelerator(cpu=True, mixed_precision="no", **settings)

    yield make
    forget()
