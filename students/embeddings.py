"""BERT's embeddings, in the form of every family whose layers are BERT's."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertEmbeddings

from .configuration import StudentConfig


class StudentEmbeddings(BertEmbeddings):
    """BERT's embeddings; narrower than the layers, counted from padding or without token types where configured."""

    def __init__(self, config: StudentConfig) -> None:
        own = copy.copy(config)
        own.hidden_size = config.embedding_size or config.hidden_size
        super().__init__(own)
        self.first = config.position_offset
        self.has_token_types = config.type_vocab_size > 1
        if self.first:
            rows = config.max_position_embeddings
            self.position_embeddings = nn.Embedding(rows, own.hidden_size, padding_idx=self.first - 1)
        narrow = config.embedding_size is not None
        self.to_hidden = nn.Linear(own.hidden_size, config.hidden_size) if narrow else None

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Embed (B, N) tokens, or (B, N, E) embeddings of them, as (B, N, D).

        Raises ValueError for more tokens than there are positions.
        """
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        assert tokens is not None
        positions = self.position_embeddings.num_embeddings - self.first
        if position_ids is None and tokens.shape[1] > positions:
            raise ValueError(
                f"{tokens.shape[1]} tokens are more than the {positions} positions of this model; truncate the text "
                "to that length"
            )
        if position_ids is None and self.first:
            position_ids = self._positions_behind_padding(input_ids, tokens)
        embed: Any = super().forward  # declared for tensors of one type
        states = embed(
            input_ids=input_ids,
            token_type_ids=token_type_ids if self.has_token_types else None,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )
        return states if self.to_hidden is None else self.to_hidden(states)

    def _positions_behind_padding(self, input_ids: Tensor | None, tokens: Tensor) -> Tensor:
        """Return positions (B, N) as RoBERTa counts them, passing over pads, which have the position before the first.

        The number of that position is the padding token's. Embeddings that are given are all taken for tokens.
        """
        if input_ids is None:
            end = self.first + tokens.shape[1]
            return torch.arange(self.first, end, device=tokens.device).expand(tokens.shape[:2])
        is_token = input_ids.ne(self.first - 1).long()
        return is_token.cumsum(1) * is_token + self.first - 1
