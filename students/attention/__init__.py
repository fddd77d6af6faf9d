"""Attention mechanisms, by the name that a configuration selects them with."""

from .abc import ABCAttention
from .aft import AFTAttention
from .base import SelfAttention
from .bigbird import BigBirdAttention
from .compressive import CompressiveAttention
from .cosformer import CosformerAttention
from .fastformer import FastformerAttention
from .fnet import FNetMixing
from .hedgehog import HedgehogAttention
from .hybrid import HybridAttention
from .knn import KNNAttention
from .linear import LinearAttention
from .linformer import LinformerAttention
from .lion import LionAttention
from .longformer import LongformerAttention
from .lsra import LSRAttention
from .luna import LunaAttention
from .luna_kernel import LunaKernelAttention
from .memory_efficient import MemoryEfficientAttention
from .nystrom import NystromAttention
from .performer import PerformerAttention
from .reformer import ReformerAttention
from .rfa import RandomFeatureKernelAttention
from .scaling import ScalingAttention
from .scatterbrain import ScatterbrainAttention
from .softmax import SoftmaxAttention
from .sparse import SparseAttention
from .t2r import T2RAttention
from .taylor import TaylorAttention
from .transformer_xl import TransformerXLAttention

ATTENTIONS: dict[str, type[SelfAttention]] = {
    "abc": ABCAttention,  # attention with bounded memory: https://arxiv.org/abs/2110.02488
    "aft": AFTAttention,  # attention free, gated means per channel: https://arxiv.org/abs/2105.14103
    "bigbird": BigBirdAttention,  # neighbouring, global and random blocks: https://arxiv.org/abs/2007.14062
    "compressive": CompressiveAttention,  # Transformer-XL, older tokens compressed: https://arxiv.org/abs/1911.05507
    "cosformer": CosformerAttention,  # ReLU features, cosine of the distance: https://arxiv.org/abs/2202.08791
    "fastformer": FastformerAttention,  # additive attention, one global vector: https://arxiv.org/abs/2108.09084
    "fnet": FNetMixing,  # Fourier transforms, no attention: https://arxiv.org/abs/2105.03824
    "hedgehog": HedgehogAttention,  # learned softmax features: https://arxiv.org/abs/2402.04347
    "hybrid": HybridAttention,  # window softmax and Hedgehog features, as LoLCATs: https://arxiv.org/abs/2410.10254
    "knn": KNNAttention,  # the largest logits of each row alone: https://arxiv.org/abs/2106.00515
    "linear": LinearAttention,  # Transformers are RNNs, features elu + 1: https://arxiv.org/abs/2006.16236
    "linformer": LinformerAttention,  # tokens projected to slots: https://arxiv.org/abs/2006.04768
    "lion": LionAttention,  # linear attention with learned decays, both ways: https://arxiv.org/abs/2502.16249
    "longformer": LongformerAttention,  # sliding window and global tokens: https://arxiv.org/abs/2004.05150
    "lsra": LSRAttention,  # Lite Transformer, half convolution: https://arxiv.org/abs/2004.11886
    "luna": LunaAttention,  # extra tokens pack, tokens read: https://arxiv.org/abs/2106.01540
    "luna_kernel": LunaKernelAttention,  # learned functions of learned projections: https://arxiv.org/abs/2512.08061
    "memory_efficient": MemoryEfficientAttention,  # exact, in chunks: https://arxiv.org/abs/2112.05682
    "nystrom": NystromAttention,  # landmarks and a pseudoinverse: https://arxiv.org/abs/2102.03902
    "performer": PerformerAttention,  # FAVOR+ random features, linear in length: https://arxiv.org/abs/2009.14794
    "reformer": ReformerAttention,  # sorted by a hash, in chunks: https://arxiv.org/abs/2001.04451
    "rfa": RandomFeatureKernelAttention,  # Gaussian or arc-cosine random features: https://arxiv.org/abs/2103.02143
    "scaling": ScalingAttention,  # sparse projections, softmax: https://arxiv.org/abs/2111.12763
    "scatterbrain": ScatterbrainAttention,  # window softmax, FAVOR+ elsewhere: https://arxiv.org/abs/2110.15343
    "softmax": SoftmaxAttention,  # BERT's own, quadratic: the control
    "sparse": SparseAttention,  # every l-th token and the nearest, N√N: https://arxiv.org/abs/1904.10509
    "t2r": T2RAttention,  # learned ReLU features: https://arxiv.org/abs/2103.13076
    "taylor": TaylorAttention,  # 1 + s + s²/2 in few dimensions: https://arxiv.org/abs/2402.18668
    "transformer_xl": TransformerXLAttention,  # segments with a memory, relative positions: https://arxiv.org/abs/1901.02860
}
