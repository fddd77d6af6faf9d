"""Tiny random classifiers of other families than BERT, each with a tokenizer of its own kind, made offline."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DebertaV2Tokenizer,
    GPT2Config,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetTokenizer,
)

FAMILIES = ("deberta-v2", "modernbert", "xlnet")
SPREAD = 0.5
"""Ordinary initialisation leaves tiny models almost constant."""


def tiny_teacher(
    family: str,
    texts: Sequence[str],
    folder: Path,
    *,
    num_labels: int = 2,
    head: bool = True,
    spread: float = SPREAD,
    **settings: Any,
) -> Path:
    """Save a tiny model of a family, untrained, and a tokenizer made for ``texts``.

    Args:
        family: as ``model_type`` calls it.
        head: save a classifier rather than an encoder.
        spread: standard deviation of its weights.
        settings: of its configuration.
    """
    tokenizer = _tokenizer(family, texts)
    config = _config(family, tokenizer, num_labels, spread, settings)
    torch.manual_seed(0)
    (AutoModelForSequenceClassification if head else AutoModel).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _config(
    family: str, tokenizer: PreTrainedTokenizerBase, num_labels: int, spread: float, settings: dict[str, Any]
) -> PreTrainedConfig:
    shared: dict[str, Any] = {"vocab_size": len(tokenizer), "num_labels": num_labels, "initializer_range": spread}
    shared["pad_token_id"] = tokenizer.pad_token_id
    size = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    if family == "deberta-v2":  # as v3 is: relative positions shared by the layers, no token types
        deberta = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
        deberta |= {"type_vocab_size": 0, "pooler_hidden_size": 24, "position_buckets": 8, "share_att_key": True}
        return DebertaV2Config(**shared | size | deberta | settings)
    if family == "modernbert":
        modern = {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": tokenizer.cls_token_id}
        modern |= {"sep_token_id": tokenizer.sep_token_id, "bos_token_id": tokenizer.cls_token_id}
        modern |= {"eos_token_id": tokenizer.sep_token_id, "max_position_embeddings": 64}
        return ModernBertConfig(**shared | size | modern | settings)
    if family == "xlnet":
        return XLNetConfig(**shared, d_model=24, n_layer=3, n_head=2, d_inner=32, **settings)
    return GPT2Config(**shared, n_embd=24, n_layer=3, n_head=2, n_positions=64, **settings)


def _tokenizer(family: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    if family == "deberta-v2":
        special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
        return DebertaV2Tokenizer(vocab=_unigrams(special, texts), unk_id=special.index("[UNK]"))
    if family == "xlnet":
        special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
        return XLNetTokenizer(vocab=_unigrams(special, texts), unk_id=0)
    return _byte_pairs(family, texts)


def _unigrams(special: Sequence[str], texts: Sequence[str]) -> list[tuple[str, float]]:
    """Return a vocabulary of the words of ``texts``, and of their characters for all others."""
    words = sorted({f"▁{word}" for text in texts for word in text.split()})
    characters = sorted({character for word in words for character in word})
    return [
        *((each, 0.0) for each in special),
        *((each, -5.0) for each in words),
        *((each, -12.0) for each in characters),
    ]


def _byte_pairs(family: str, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE: with [CLS] and [SEP] as ModernBERT has, or with nothing around, as GPT-2."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if family == "modernbert" else ["<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if family != "modernbert":
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], unk_token=special[0])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", model_input_names=inputs, **names)


CODE = """
import pathlib
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

pathlib.Path({mark!r}).touch()


class BagConfig(PreTrainedConfig):
    model_type = "bag_of_words"

    def __init__(self, vocab_size=100, hidden_size=8, **settings):
        super().__init__(**settings)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size


class BagClassifier(PreTrainedModel):
    config_class = BagConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, **options):
        mask = attention_mask[..., None].float()
        return SequenceClassifierOutput(logits=self.classifier((self.words(input_ids) * mask).sum(1) / mask.sum(1)))
"""


def teacher_with_code(texts: Sequence[str], folder: Path, mark: Path) -> Path:
    """Save a finished classifier of its own code, which shows no layers and touches ``mark`` when it is run."""
    tokenizer = _tokenizer("modernbert", texts)
    tokenizer.save_pretrained(folder)
    (folder / "bag.py").write_text(CODE.format(mark=str(mark)))
    settings: dict[str, Any] = {"model_type": "bag_of_words", "vocab_size": len(tokenizer), "hidden_size": 8}
    settings |= {"architectures": ["BagClassifier"], "pad_token_id": tokenizer.pad_token_id}
    settings["auto_map"] = {"AutoConfig": "bag.BagConfig", "AutoModelForSequenceClassification": "bag.BagClassifier"}
    (folder / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    sizes = {"words.weight": (len(tokenizer), 8), "classifier.weight": (2, 8), "classifier.bias": (2,)}
    weights = {name: torch.randn(size) for name, size in sizes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
