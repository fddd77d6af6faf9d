"""Merge what training kept apart: the same student with fewer matrix products."""

import copy
from typing import Any

from .attention.t2r import T2RAttention


def fold_features(student: Any) -> Any:
    """Return a copy of a student whose T2R layers have their feature map inside the query and key projections.

    W_φ(W x + c) + b is one linear map of x (https://arxiv.org/abs/2103.13076): equal up to rounding, saved and loaded
    like any student. Where it would save no operations, with m ≥ Dd / (D - d) features, or where no layer is T2R's,
    the student itself is returned.
    """
    layers = [module for module in student.modules() if isinstance(module, T2RAttention) and module.folding_pays()]
    if not layers:
        return student
    folded = copy.deepcopy(student)
    for module in folded.modules():
        if isinstance(module, T2RAttention):
            module.fold()
    folded.config.folded_features = True
    return folded
