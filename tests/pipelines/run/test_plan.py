"""The plan says a time as people do, and measures without leaving a trace."""

import pytest
import torch

from pipelines.run.plan import in_words, seconds_per_token


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (42.4, "42 s"), (89, "89 s"), (95, "2 min"), (3000, "50 min"), (9000, "2.5 h")]
)
def test_times_in_words(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


@pytest.mark.parametrize("dropout", [False, True])
def test_measuring_changes_nothing(make_bert, make_examples, dropout: bool) -> None:
    model, examples = make_bert().eval(), make_examples(12)
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    modes = []
    model.register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    forward, both = seconds_per_token(model, examples, None, dropout=dropout)
    assert modes == [False, False, dropout, dropout], "the times are those of training"
    assert forward > 0
    assert both > 0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [name for name, tensor in model.named_parameters() if tensor.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]
    assert all(tensor.grad is None for tensor in model.parameters())
    assert not model.training
