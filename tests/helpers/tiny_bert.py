"""A BERT classifier that is small enough for a test."""

from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 32,
    # Ordinary initialisation leaves tiny models almost constant.
    "initializer_range": 0.5,
}


def tiny_bert(seed: int = 0, **settings: Any) -> BertForSequenceClassification:
    """Return a BERT classifier in eval mode; the same seed and settings give the same weights."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SIZES | settings)).eval()
