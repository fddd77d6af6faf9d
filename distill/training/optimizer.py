"""What a stage trains, and at which learning rate."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from distill.config.schema import StageConfig
from students.families import encoder_layers, find_family

NO_DECAY = ("bias", "LayerNorm")
"""Beside every vector: the norms of other families have other names, and XLNet's biases are matrices."""
LAYER = re.compile(r"\.(?:layers?|h|block)\.(\d+)\.")
EMBEDDING = re.compile(r"emb|\.wte\.|\.wpe\.")


def feature_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the attention mechanism added to BERT (maps, temperatures, projections)."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "feature_parameters")]
    return [parameter for module in modules for parameter in module.feature_parameters()]


def feature_rates(model: nn.Module) -> dict[int, int]:
    """Return how many times the learning rate of a stage each of these parameters, by its identity, bears by default.

    That is its mechanism's: the layers of a student may have different ones.
    """
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "feature_rate")]
    return {id(parameter): module.feature_rate for module in modules for parameter in module.feature_parameters()}


def frozen_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the student keeps as they are, whatever a stage says."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "frozen_parameters")]
    return [parameter for module in modules for parameter in module.frozen_parameters()]


def trained_part(model: nn.Module, stage: StageConfig) -> str:
    """Return what a stage trains: as it says, but whole attention blocks where the mechanism has no features."""
    return "attention" if stage.train == "features" and not feature_parameters(model) else stage.train


def trained_parameters(model: Any, stage: StageConfig) -> dict[str, nn.Parameter]:
    """Return the parameters that a stage trains, by name; the model stays as it is."""
    features = {id(parameter) for parameter in feature_parameters(model)}
    frozen = {id(parameter) for parameter in frozen_parameters(model)}
    of_layer, _ = _layers_of(model)
    part = trained_part(model, stage)
    words = model.get_input_embeddings().weight

    def is_trained(name: str, parameter: nn.Parameter) -> bool:
        is_feature = id(parameter) in features
        chosen = {
            "features": is_feature,
            "attention": is_feature or ".attention." in name,
            # What stands behind the layers, a pooler too.
            "head": id(parameter) not in of_layer and not EMBEDDING.search(name),
            "encoder": parameter is not words,
            "all": True,
        }[part]
        return chosen and id(parameter) not in frozen

    return {name: parameter for name, parameter in model.named_parameters() if is_trained(name, parameter)}


def set_trainable(model: nn.Module, stage: StageConfig) -> None:
    """Let gradients reach what a stage trains, and nothing else."""
    trained = {id(parameter) for parameter in trained_parameters(model, stage).values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


@contextmanager
def trainable(model: nn.Module, stage: StageConfig) -> Iterator[None]:
    """`set_trainable` for as long as the context lasts; a model that others share is left as it was."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    set_trainable(model, stage)
    try:
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


def parameter_groups(model: Any, stage: StageConfig, weight_decay: float) -> list[dict]:
    """Group what a stage trains for the optimizer; the model stays as it is.

    The mechanism's own parameters start from an arbitrary point while the copied weights start from good ones, so
    they learn faster, by the mechanism's ``feature_rate``, unless ``feature_learning_rate`` says otherwise. Biases,
    LayerNorm and features are not decayed. Layer i of L learns at ``layer_decay`` to the power of L - i, the
    embeddings at L + 1; weights that several layers share learn as the last of these.
    """
    features, rates = {id(parameter) for parameter in feature_parameters(model)}, feature_rates(model)
    of_layer, num_layers = _layers_of(model)
    groups: dict[tuple[str, int, int], list[nn.Parameter]] = {}
    for name, parameter in trained_parameters(model, stage).items():
        is_plain = any(part in name for part in NO_DECAY) or parameter.ndim == 1
        kind = "features" if id(parameter) in features else "plain" if is_plain else "decayed"
        rate = rates.get(id(parameter), 10) if kind == "features" else 1
        depth = 0 if stage.layer_decay == 1 else _layers_above(name, of_layer.get(id(parameter)), num_layers)
        groups.setdefault((kind, rate, depth), []).append(parameter)
    found = []
    for kind in ("features", "decayed", "plain"):
        for _, rate, depth in sorted(key for key in groups if key[0] == kind):
            given = stage.feature_learning_rate if kind == "features" else None
            base_rate, decay = given or rate * stage.learning_rate, weight_decay if kind == "decayed" else 0.0
            own = base_rate * stage.layer_decay**depth
            found.append({"params": groups[kind, rate, depth], "lr": own, "initial_lr": own, "weight_decay": decay})
    return found


def _layers_of(model: Any) -> tuple[dict[int, int], int]:
    """Return the layer that each parameter is of, by its identity, and how many layers there are.

    A model of a family that `students.families` does not know tells by the names of its parameters: XLNet's are
    layer.3, ModernBERT's layers.3, GPT-2's h.3.
    """
    if find_family(model.config) is not None:
        layers = encoder_layers(model)
        return {id(each): index for index, layer in enumerate(layers) for each in layer.parameters()}, len(layers)
    matches = [(LAYER.search(name), parameter) for name, parameter in model.named_parameters()]
    num_layers = int(getattr(model.config, "num_hidden_layers", None) or 0)
    return {id(parameter): int(match[1]) for match, parameter in matches if match}, num_layers


def _layers_above(name: str, layer: int | None, num_layers: int) -> int:
    """Return how many layers, the head one of them, stand between a parameter and the loss; 0 for the head's own.

    Args:
        layer: the parameter's own, if it is a layer's.
    """
    if layer is not None:
        return num_layers - layer
    return num_layers + 1 if EMBEDDING.search(name) else 0
