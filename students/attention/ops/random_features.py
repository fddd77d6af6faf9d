"""Random projections as a module's state: fixed, redrawn or learned, and the same in every process.

Shapes: B batch, N sequence length, H heads, d head size, m rows of the projection.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization

from ..base import HeadAttention
from .orthogonal_projection import draw_projection

if TYPE_CHECKING:
    from ...configuration import StudentConfig


def seeded_generator(seed: int, layer: int, draw: int) -> torch.Generator:
    """Return a CPU generator that depends on these numbers alone; no global random state is read or moved."""
    digest = hashlib.sha256(f"{seed}/{layer}/{draw}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


class RandomFeatureAttention(HeadAttention):
    """Attention by features of a random projection: ``projection`` is (m, d) or, learned, (H, m, d)."""

    complexity = "linear"
    has_random_features = True
    uses_num_features = True

    always_learned: ClassVar[bool] = False
    """Whether the projection is learned whatever the option ``features`` says."""

    projection: Tensor
    redraw_index: Tensor

    def __init__(self, config: "StudentConfig", layer: int, num_rows: int) -> None:
        super().__init__(config, layer)
        self.num_rows = num_rows
        self.learned = self.always_learned or config.features == "learned"
        self.seed = config.projection_seed
        if self.learned:
            self.projection = nn.Parameter(torch.empty(self.num_heads, num_rows, self.head_size))
        else:
            # Persistent: from_pretrained leaves buffers that no checkpoint fills uninitialised.
            self.register_buffer("projection", torch.empty(num_rows, self.head_size, dtype=torch.float32))
            self.register_buffer("redraw_index", torch.zeros((), dtype=torch.int64))

    def initialize_features(self) -> None:
        if self.learned:
            initialization.copy_(self.projection, self._draw(0, num_draws=self.num_heads))
        else:
            initialization.copy_(self.projection, self._draw(0)[0])
            initialization.copy_(self.redraw_index, torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def redraw_features(self, redraw_index: int) -> None:
        """Replace the projection by draw number ``redraw_index``, the same on every process and after a restart."""
        if self.always_learned:
            return
        if self.learned:
            raise ValueError("learned features are parameters; only features='redrawn' can be drawn again")
        self.projection.copy_(self._draw(redraw_index)[0])
        self.redraw_index.fill_(redraw_index)

    def _draw(self, redraw_index: int, num_draws: int = 1) -> Tensor:
        """Draw (num_draws, m, d) from (seed, layer, redraw index) alone."""
        generator = seeded_generator(self.seed, self.layer, redraw_index)
        return torch.stack([draw_projection(self.num_rows, self.head_size, generator) for _ in range(num_draws)])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Convert like any module, but keep a random projection in fp32: half precision would change the features."""
        before = self.projection
        super()._apply(fn, recurse)
        if not self.learned and self.projection.dtype in (torch.float16, torch.bfloat16):
            self.projection = before.to(self.projection.device)
        return self


class SoftmaxKernelAttention(RandomFeatureAttention):
    """Random features that estimate exp(t q·k / √d) at a temperature t, learned per head."""

    feature_rate = 100
    estimates_softmax = True

    def __init__(self, config: "StudentConfig", layer: int, num_rows: int) -> None:
        super().__init__(config, layer, num_rows)
        self.initial_temperature = config.initial_temperature
        self.log_temperature = nn.Parameter(torch.empty(self.num_heads))

    @property
    def temperature(self) -> Tensor:
        """The factor on q·k, (H,)."""
        return self.log_temperature.exp()

    def scale(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply queries and keys by √t each, so that both |q|² and |k|² of the features know the temperature."""
        root = (0.5 * self.log_temperature).exp().view(-1, 1, 1)
        return query * root, key * root

    @torch.no_grad()
    def calibrate(self, hidden_states: Tensor, mask: Tensor | None, target_norm: float) -> None:
        """Set the temperature so that mean |q+k|²/√d over pairs of real tokens is ``target_norm``; never above 1."""
        query, key = self.split_heads(self.query(hidden_states)), self.split_heads(self.key(hidden_states))
        norm = mean_pair_norm(query, key, mask)
        self.log_temperature.copy_((target_norm / norm).clamp(max=1.0).log())

    def initialize_features(self) -> None:
        super().initialize_features()
        initialization.copy_(self.log_temperature, torch.full((self.num_heads,), self.initial_temperature).log())


def mean_pair_norm(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Mean |q_i + k_j|²/√d over all pairs of real tokens of the same example, (H,), without forming the pairs.

    Σ_ij |q_i + k_j|² = n Σ|q_i|² + n Σ|k_j|² + 2 (Σq_i)·(Σk_j) for an example of n tokens.
    """
    query, key = query.float(), key.float()
    if mask is not None:
        pad = ~mask[:, None, :, None]
        query, key = query.masked_fill(pad, 0), key.masked_fill(pad, 0)
        lengths = mask.sum(-1).to(query.dtype)
    else:
        lengths = query.new_full((query.shape[0],), query.shape[2])
    squares = (query.square() + key.square()).sum((-1, -2))
    products = (query.sum(-2) * key.sum(-2)).sum(-1)
    total = (lengths[:, None] * squares + 2 * products).sum(0)
    return total / lengths.square().sum() * query.shape[-1] ** -0.5
