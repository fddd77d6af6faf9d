"""A tiny random classifier of every family whose layers are BERT's, a batch for it, and a tokenizer of its kind."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
import transformers
from helpers.tiny_bert import SIZES
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from students.families import FAMILIES

OWN: dict[str, dict[str, Any]] = {
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8, "num_hidden_groups": 1},
}
"""What the published models of a family have, in small."""
FORMS = [
    *((kind, {}) for kind in FAMILIES),
    ("electra", {"embedding_size": 16}),
    ("albert", {"embedding_size": 16, "num_hidden_groups": 2, "num_hidden_layers": 4}),
    ("distilbert", {"sinusoidal_pos_embds": True}),
    ("roberta", {"hidden_act": "gelu_new", "type_vocab_size": 2, "pad_token_id": 3}),
]
"""Every family, and its other forms: embeddings as wide as the layers, several groups of layers, other activations."""
FIRST_WORD = 5
"""The lowest number that is no special token's in any of the tiny vocabularies."""


def tiny_classifier(kind: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Return a classifier of a family in eval mode; settings have BERT's names, or the family's own."""
    family = FAMILIES[kind]
    wanted = SIZES | OWN.get(kind, {}) | settings
    torch.manual_seed(seed)
    if family.counts_from_padding:
        wanted["max_position_embeddings"] += 1 + wanted.get("pad_token_id", 1)
    config = AutoConfig.for_model(kind, **{family.settings.get(key, key): value for key, value in wanted.items()})
    return getattr(transformers, family.classifier)(config).eval()


def batch_for(model: PreTrainedModel, lengths: Iterable[int] = (12, 5, 3), length: int = 12) -> dict[str, Tensor]:
    """Return texts of these lengths, padded on the right, with token types where the model tells them apart."""
    random = torch.Generator().manual_seed(0)
    mask = torch.arange(length) < torch.tensor(list(lengths))[:, None]
    ids = torch.randint(FIRST_WORD, model.config.vocab_size, mask.shape, generator=random)
    inputs = {"input_ids": ids.where(mask, model.config.pad_token_id), "attention_mask": mask.long()}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = (ids % 2) * mask
    return inputs


def wordpiece(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Return BERT's kind of tokenizer."""
    from distill.data.tokenization import train_tokenizer  # models alone need nothing but the students

    return train_tokenizer(texts, size)


def byte_level(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Return RoBERTa's kind of tokenizer."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    state = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    return transformers.RobertaTokenizer(vocab=state["vocab"], merges=merges)


def unigram(
    texts: list[str], size: int, special: list[str], make: Callable[..., PreTrainedTokenizerBase]
) -> PreTrainedTokenizerBase:
    """Return SentencePiece's kind of tokenizer, as XLM-R, CamemBERT and ALBERT have it: frequent words and letters."""
    words = Counter(word for text in texts for word in text.split())
    letters = sorted(set("".join(words)) | {SPACE})
    frequent = words.most_common(size - len(special) - len(letters))
    pieces = [(f"{SPACE}{word}", math.log(count / words.total())) for word, count in frequent]
    return make(vocab=[*((each, 0.0) for each in special), *pieces, *((letter, -20.0) for letter in letters)])


SPACE = "\u2581"
FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CAMEMBERT = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
ALBERT = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]


def tiny_tokenizer(kind: str, texts: list[str], size: int = 300) -> PreTrainedTokenizerBase:
    """Return a tokenizer of the kind that a family's models come with, trained on texts."""
    if kind == "roberta":
        return byte_level(texts, size)
    if kind == "xlm-roberta":
        return unigram(texts, size, FAIRSEQ, transformers.XLMRobertaTokenizer)
    if kind == "camembert":
        return unigram(texts, size, CAMEMBERT, transformers.CamembertTokenizer)
    if kind == "albert":
        return unigram(texts, size, ALBERT, transformers.AlbertTokenizer)
    return wordpiece(texts, size)
