"""The families of encoders whose layers are BERT's: where each keeps what BERT keeps under other names.

One table, for whoever reads a teacher's layers and for whoever copies its weights. A family is in it if a student of
all its layers with softmax attention computes the teacher's logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import BertConfig

STUDENT_LAYERS = "bert.encoder.layer."


@dataclass(frozen=True)
class Family:
    """What a family calls the parts of a BERT, and in what else it differs from it."""

    classifier: str
    """Class of its sequence classifiers in transformers."""
    prefix: str
    """Attribute of a classifier that is the encoder."""
    layers: str = "encoder.layer.{}"
    """Path of a layer in the encoder; its number is that of the weights, which several layers may share."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """BERT's name of a module in a layer to the family's, where they differ."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """BERT's name of any other module of a classifier to the family's, where they differ by more than the prefix."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """BERT's key of the configuration to the family's, where they differ."""
    pooler_act: str = "tanh"
    """Activation between the two linear layers of the classifier."""
    counts_from_padding: bool = False
    """Whether the first token has the position behind that of padding, whose number is the padding token's."""


# RoBERTa's and ELECTRA's encoders have no pooler: the head has a layer of its own, which is one but for its name.
_OWN_HEAD = {"bert.pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"}


def _roberta(classifier: str) -> Family:
    """Return RoBERTa's family, whose members differ in their tokenizers alone."""
    return Family(classifier, "roberta", modules=_OWN_HEAD, counts_from_padding=True)


BERT = Family("BertForSequenceClassification", "bert")
FAMILIES: dict[str, Family] = {
    "bert": BERT,
    "roberta": _roberta("RobertaForSequenceClassification"),
    "xlm-roberta": _roberta("XLMRobertaForSequenceClassification"),
    "camembert": _roberta("CamembertForSequenceClassification"),
    "electra": Family(
        "ElectraForSequenceClassification",
        "electra",
        modules=_OWN_HEAD | {"bert.embeddings.to_hidden": "electra.embeddings_project"},
        pooler_act="gelu",
    ),
    "distilbert": Family(
        "DistilBertForSequenceClassification",
        "distilbert",
        layers="transformer.layer.{}",
        parts={
            "attention.self.query": "attention.q_lin",
            "attention.self.key": "attention.k_lin",
            "attention.self.value": "attention.v_lin",
            "attention.output.dense": "attention.out_lin",
            "attention.output.LayerNorm": "sa_layer_norm",
            "intermediate.dense": "ffn.lin1",
            "output.dense": "ffn.lin2",
            "output.LayerNorm": "output_layer_norm",
        },
        modules={"bert.pooler.dense": "pre_classifier"},
        settings={
            "hidden_size": "dim",
            "intermediate_size": "hidden_dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "classifier_dropout": "seq_classif_dropout",
        },
        pooler_act="relu",
    ),
    "albert": Family(
        "AlbertForSequenceClassification",
        "albert",
        layers="encoder.albert_layer_groups.{}.albert_layers.0",
        parts={
            "attention.self.query": "attention.query",
            "attention.self.key": "attention.key",
            "attention.self.value": "attention.value",
            "attention.output.dense": "attention.dense",
            "attention.output.LayerNorm": "attention.LayerNorm",
            "intermediate.dense": "ffn",
            "output.dense": "ffn_output",
            "output.LayerNorm": "full_layer_layer_norm",
        },
        modules={
            "bert.pooler.dense": "albert.pooler",
            "bert.embeddings.to_hidden": "albert.encoder.embedding_hidden_mapping_in",
        },
        settings={"classifier_dropout": "classifier_dropout_prob"},
    ),
}
"""By transformers' ``model_type``."""

OURS = ("efficient_bert", "frozen_bert_lstm")
"""Our own students, whose modules have BERT's names."""


def find_family(config: Any) -> Family | None:
    """Return the family of a configuration, for our own students BERT; None where it has none."""
    kind = getattr(config, "model_type", None)
    return BERT if kind in OURS else FAMILIES.get(str(kind))


def why_not(config: Any) -> str | None:
    """Say why no student can be built out of the layers of such a model, as ``is a ...``; None where it can."""
    kind = getattr(config, "model_type", None)
    if find_family(config) is None:
        what = "whose attention has a bias that no student has" if kind == "mpnet" else "whose layers are not BERT's"
        return f"is a {kind!r}, {what}: those of {', '.join(FAMILIES)} are"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "is a decoder (is_decoder or add_cross_attention in its config.json)"
    if (inner := getattr(config, "inner_group_num", 1)) != 1:
        return f"is an ALBERT with inner_group_num {inner}: there must be one layer in a group"
    return None


def encoder_layers(model: Any) -> list[Any]:
    """Return the layers of a classifier or encoder in the order in which they compute.

    One whose weights serve several layers, as ALBERT's do, stands there as often. Raises ValueError for a model of
    another family.
    """
    config: Any = getattr(model, "config", None)
    family = BERT if config is None else find_family(config)
    encoder: Any = None if family is None else getattr(model, family.prefix, model)
    try:
        if family is None or family.layers == BERT.layers:
            return list(encoder.encoder.layer)
        return [encoder.get_submodule(_layer_path(config, layer)) for layer in range(config.num_hidden_layers)]
    except AttributeError:
        raise ValueError(
            f"{type(model).__name__} is not a BERT, nor of another family whose layers are BERT's: "
            f"{', '.join(FAMILIES)}"
        ) from None


def layer_part(model: Any, layer: nn.Module, part: str) -> Any:
    """Return the module of one of the model's layers that BERT calls ``part``, such as ``attention.self.query``."""
    family = find_family(getattr(model, "config", None)) or BERT
    return layer.get_submodule(family.parts.get(part, part))


def own_name(config: Any, name: str, layers: Sequence[int]) -> str:
    """Return what a classifier of this configuration calls the tensor that a student calls ``name``.

    Args:
        layers: which of the classifier's layers stands behind each of the student's.
    """
    family = find_family(config) or BERT
    if name.startswith(STUDENT_LAYERS):
        number, rest = name.removeprefix(STUDENT_LAYERS).split(".", maxsplit=1)
        module, _, tensor = rest.rpartition(".")
        path = _layer_path(config, layers[int(number)])
        return f"{family.prefix}.{path}.{family.parts.get(module, module)}.{tensor}"
    module, _, tensor = name.rpartition(".")
    if module in family.modules:
        return f"{family.modules[module]}.{tensor}"
    return f"{family.prefix}.{name.removeprefix('bert.')}" if name.startswith("bert.") else name


def last_linear(model: Any) -> Any:
    """Return the linear layer of a classifier whose outputs are the logits."""
    path = own_name(model.config, "classifier.", ()).rstrip(".")
    head = model.get_submodule(path)
    return head[-1] if isinstance(head, nn.Sequential) else head


def bert_settings(config: Any) -> dict[str, Any]:
    """Return what a BERT of the same sizes, dropout and labels has in its configuration."""
    family = find_family(config) or BERT
    if family is BERT:
        return dict(config.to_dict())
    keys = {key: family.settings.get(key, key) for key in BertConfig().to_dict()}
    settings = {key: getattr(config, own) for key, own in keys.items() if hasattr(config, own)}
    if not hasattr(config, "type_vocab_size"):
        settings["type_vocab_size"] = 1  # a table of one row, which is zero: see `from_teacher`
    offset = config.pad_token_id + 1 if family.counts_from_padding else 0
    return settings | {"position_offset": offset, "pooler_act": family.pooler_act}


def _layer_path(config: Any, layer: int) -> str:
    """Return the path in the encoder of the weights with which layer number ``layer`` computes."""
    family = find_family(config) or BERT
    groups = getattr(config, "num_hidden_groups", config.num_hidden_layers)
    return family.layers.format(int(layer / (config.num_hidden_layers / groups)))
