"""How far two ways to compute the same may differ: by roundings of the largest entry, on any machine."""

from typing import Any

import numpy as np
import torch

ROUNDINGS = 64
"""Sums of a few layers over some tens of terms, added in another order: each ends a few roundings off."""
LAST_BITS = 8
"""The same operations on the same tensors, with other threads, shapes or kernels."""
TRAINED = 8192
"""Models trained with gradients that several processes added up: 1e-3 of the size in fp32, as their losses."""


def assert_close(actual: Any, expected: Any, roundings: int = ROUNDINGS) -> None:
    """Check that two tensors or arrays of one dtype agree, infinities and shape included.

    An entry that cancels to almost nothing carries the error of what it is the sum of, and a logit of 7 seven times
    that of one of 1. So the limit is ``roundings`` times the dtype's epsilon times the largest finite entry expected.
    """
    actual, expected = (torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in (actual, expected))
    assert actual.dtype == expected.dtype
    size = expected[expected.isfinite()].abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=roundings * torch.finfo(expected.dtype).eps * size)
