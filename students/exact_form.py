"""The exact form of a student: softmax attention of the same weights, for texts of every length."""

import copy

import torch

from .modeling import StudentForSequenceClassification


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
