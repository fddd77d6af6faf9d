"""Taylor attention: the first three terms of exp(q·k), of queries and keys in few learned dimensions."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .ops.feature_maps import FeatureMapAttention, HeadLinear
from .ops.low_rank import few_dimensions
from .ops.masking import blank_pads
from .ops.random_features import seeded_generator
from .ops.reference import naive_weighted_mean

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class TaylorAttention(FeatureMapAttention):
    """Weights 1 + s + s²/2 with s = (P q)·(R k + b), P and R (H, r, d) learned; 4Nrd + 4Nfd operations per head.

    https://arxiv.org/abs/2402.18668, whose r is 16 too. s² is the product of f = (r + 1)(r + 2) / 2 features 1, x_i,
    x_i x_j (i < j) and x_i²/√2. No weight is below 1/2. b takes the keys' mean away, which softmax does not see and a
    series around 0 does.

    P and R start at random orthogonal rows; ``calibrate`` starts them where P and R come closest to a batch's own q·k.
    """

    estimates_softmax = True
    takes_single_queries = True
    why_not_causal = None
    feature_rate = 100
    options = {"dimensions": 16}  # noqa: RUF012
    limits = {"dimensions": (1, 64)}  # noqa: RUF012
    small_options = {"dimensions": 3}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        dimensions = (config.attention_options or {})["dimensions"]
        self.query_map = HeadLinear(self.num_heads, self.head_size, dimensions, bias=False)
        self.key_map = HeadLinear(self.num_heads, self.head_size, dimensions, bias=True)

    def query_features(self, query: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        return series(self.query_map(query * self.head_size**-0.25))

    def key_features(self, key: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        # A pad's NaN would reach the gradient of R through 0 · NaN.
        return series(self.key_map(blank_pads(key, mask) * self.head_size**-0.25))

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return naive_weighted_mean(self.naive_weights(query, key), value, mask)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return naive_weighted_mean(self.naive_weights(query, key).tril(), value, None)

    def naive_weights(self, query: Tensor, key: Tensor) -> Tensor:
        """1 + s + s²/2 of all pairs, (B, H, N, N), by the definition."""
        assert self.key_map.bias is not None
        query = torch.einsum("hrd,bhnd->bhnr", self.query_map.weight, query / self.head_size**0.25)
        key = torch.einsum("hrd,bhnd->bhnr", self.key_map.weight, key / self.head_size**0.25)
        product = torch.einsum("bhir,bhjr->bhij", query, key + self.key_map.bias.unsqueeze(1))
        return 1 + product + product**2 / 2

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        self.query_map.initialize(generator)
        self.key_map.initialize(generator)

    @torch.no_grad()
    def calibrate(self, hidden_states: Tensor, mask: Tensor | None, target_norm: float) -> None:
        """Let s be the nearest to the q·k / √d of a batch that r dimensions hold, with a mean square of at most 1.

        Beyond, the series is no exponential any more: below s = -1 it rises again.
        """
        assert self.key_map.bias is not None
        scale = self.head_size**-0.25
        query, key = (scale * self.split_heads(each(hidden_states)) for each in (self.query, self.key))
        maps = few_dimensions(query, key, mask, self.query_map.weight.shape[1])
        root = maps.root_mean_square.clamp(min=1).rsqrt().view(-1, 1, 1)
        self.query_map.weight.copy_(maps.query * root)
        self.key_map.weight.copy_(maps.key * root)
        self.key_map.bias.copy_(-(maps.key * root @ maps.key_mean.unsqueeze(-1)).squeeze(-1))

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Few dimensions of Q and of K, then φ(K)ᵀV, then φ(Q) times it, and the normaliser."""
        dimensions, num_features = series_sizes(config)
        heads = config.attention_size // config.size_of_head
        return 4 * length * (dimensions + num_features) * config.attention_size + 2 * length * num_features * heads

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """Few dimensions of K and φ(K)ᵀV, then one query and its normaliser."""
        dimensions, num_features = series_sizes(config)
        heads = config.attention_size // config.size_of_head
        return 2 * (length + 1) * (dimensions + num_features) * config.attention_size + 2 * num_features * heads


def series(few: Tensor) -> Tensor:
    """Return features (..., f) of (..., r) whose products are 1 + s + s²/2 of the products s."""
    rows, columns = torch.triu_indices(few.shape[-1], few.shape[-1], device=few.device)
    factors = torch.ones_like(rows, dtype=few.dtype).masked_fill(rows == columns, 0.5**0.5)
    return torch.cat([torch.ones_like(few[..., :1]), few, few[..., rows] * few[..., columns] * factors], dim=-1)


def series_sizes(config: Any) -> tuple[int, int]:
    """Return r and f."""
    dimensions = config.attention_options["dimensions"]
    return dimensions, (dimensions + 1) * (dimensions + 2) // 2
