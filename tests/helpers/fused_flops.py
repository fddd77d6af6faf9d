"""What torch's counter of operations does not know."""

import torch
from torch.utils.flop_counter import sdpa_flop_count


def fused_flops(query_shape, key_shape, value_shape, *_, **__):
    """Operations of the fused kernel of CPUs, of which the counter knows nothing."""
    return sdpa_flop_count(query_shape, key_shape, value_shape)


FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused_flops}
"""For ``FlopCounterMode(custom_mapping=FUSED)``."""
