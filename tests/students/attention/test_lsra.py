"""Lite Transformer: its two halves do not meet, and the convolution is one."""

import pytest
import torch
from torch.nn import functional as F

from students import StudentConfig
from students.attention.lsra import LSRAttention

both = pytest.mark.parametrize("convolution", ["light", "dynamic"])


def lsra(convolution="light", layer=1, num_heads=4):
    torch.manual_seed(0)
    config = StudentConfig(
        hidden_size=32,
        num_attention_heads=num_heads,
        attention="lsra",
        attention_options={"convolution": convolution},
    )
    module = LSRAttention(config, layer)
    module.initialize_features()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


def states(length=24):
    return torch.randn(1, length, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@both
def test_no_half_reads_the_channels_of_the_other(convolution):
    module, hidden_states = lsra(convolution), states()
    mixed = module(hidden_states)[0]
    for own, other in ((slice(0, 16), slice(16, 32)), (slice(16, 32), slice(0, 16))):
        changed = hidden_states.clone()
        changed[..., other] += 1
        difference = (module(changed)[0] - mixed).abs()
        assert difference[..., own].max() == 0
        assert difference[..., other].max() > 1e-3


@both
@pytest.mark.parametrize(("layer", "reach"), [(0, 1), (1, 3), (2, 7), (3, 15), (9, 15)])
def test_c12_the_convolution_reaches_as_far_as_its_kernel(convolution, layer, reach):
    module, hidden_states = lsra(convolution, layer), states(40)
    changed = hidden_states.clone()
    changed[:, 20] += 1
    touched = (module(changed)[0] - module(hidden_states)[0])[0, :, 16:].abs().amax(-1) > 0
    assert touched.nonzero().flatten().tolist() == list(range(20 - reach, 20 + reach + 1))


def test_the_light_convolution_is_torchs_own_over_unfolded_tokens():
    module, hidden_states = lsra(), states()
    gated = F.glu(module.gated(hidden_states[..., 16:]))
    windows = F.pad(gated, (0, 0, 3, 3)).unfold(1, 7, 1).unflatten(2, (2, 8))
    expected = torch.einsum("bnhck,hk->bnhc", windows, module.taps.softmax(-1)).flatten(2)
    torch.testing.assert_close(module(hidden_states)[0][..., 16:], expected, rtol=0, atol=1e-10)


@both
def test_taps_sum_to_one(convolution):
    """States that are the same everywhere stay as they are, but near the ends."""
    module, hidden_states = lsra(convolution), states()[:, :1].expand(-1, 24, -1)
    expected = F.glu(module.gated(hidden_states[..., 16:]))[:, 3:-3]
    torch.testing.assert_close(module(hidden_states)[0][:, 3:-3, 16:], expected, rtol=0, atol=1e-10)


def test_an_odd_number_of_heads_is_refused():
    with pytest.raises(ValueError, match="num_attention_heads 1 is odd"):
        lsra(num_heads=1)
