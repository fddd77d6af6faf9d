"""Contract C10: any size of logits, in any precision, gives finite numbers that are not mean pooling."""

import pytest
import torch
from helpers.contract import inputs, mechanism, over_variants, run


@over_variants
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16_autocast"])
@pytest.mark.parametrize("scale", [0.25, 1.0, 5.0, 30.0])
def test_c10_any_norm_is_finite_and_not_mean_pooling(name, features, choices, precision, scale):
    module = mechanism(name, features, choices, dtype=torch.float32)
    tensors = inputs(module, length=24, dtype=torch.float32)
    mixed = tensors[:-1] if module.works_on_heads() else tensors
    for tensor in mixed:
        tensor *= scale
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16_autocast": torch.float16}[precision]
    if precision == "bf16" and not module.works_on_heads():
        module = module.to(dtype)  # its linear maps take what they are given
    leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    with torch.autocast("cpu", torch.float16, enabled=precision == "fp16_autocast"):
        context = run(module, leaves, None)
    # Not the mean square: that of a product of three states has gradients beyond fp16.
    context.float().square().mean().sqrt().backward()
    assert context.dtype == dtype
    assert context.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    if not (module.works_on_heads() and module.row_stochastic):
        return
    exact = run(mechanism(name, features, choices), [tensor.double() for tensor in tensors], None)
    uniform = tensors[-1].double().mean(2, keepdim=True)
    if (exact - uniform).norm() / uniform.norm() > 0.05:
        assert (context.double() - uniform).norm() / uniform.norm() > 1e-2
