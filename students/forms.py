"""The two forms of a student that attends short texts exactly: each of them for texts of every length."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .attention.base import SelfAttention
from .modeling import StudentForSequenceClassification


@contextmanager
def linear_form(student: nn.Module) -> Iterator[None]:
    """Let the mechanism attend in texts of every length while the block runs, in short ones too."""
    mechanisms = [module for module in student.modules() if isinstance(module, SelfAttention)]
    limits = [module.exact_up_to for module in mechanisms]
    try:
        for module in mechanisms:
            module.exact_up_to = 0
        yield
    finally:
        for module, limit in zip(mechanisms, limits, strict=True):
            module.exact_up_to = limit


def exact_form(student: StudentForSequenceClassification) -> StudentForSequenceClassification:
    """Return a softmax student of the same weights: what the student is in texts of at most ``exact_up_to`` tokens."""
    config = copy.deepcopy(student.config)
    config.attention, config.exact_up_to = "softmax", 0
    config.num_features, config.attention_options = None, {}
    with torch.random.fork_rng(devices=[]):
        exact = type(student)(config)
    weights = student.state_dict()
    exact.load_state_dict({name: weights[name] for name in exact.state_dict()})
    exact.to(device=student.device)  # type: ignore[call-arg]  # transformers wraps it in an untyped descriptor
    return exact.eval()
