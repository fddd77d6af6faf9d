"""What a stage trains, and at which learning rate."""

import re
from typing import Any

from torch import nn

from distill.config.schema import StageConfig
from distill.models.hooks import encoder_layers

NO_DECAY = ("bias", "LayerNorm")


def feature_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the attention mechanism added to BERT (maps, temperatures, projections)."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "feature_parameters")]
    return [parameter for module in modules for parameter in module.feature_parameters()]


def default_feature_rate(model: nn.Module) -> int:
    """Return how many times the learning rate of a stage the mechanism's own parameters bear where nothing is said."""
    modules: list[Any] = list(model.modules())
    return max((module.feature_rate for module in modules if hasattr(module, "feature_rate")), default=10)


def frozen_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the student keeps as they are, whatever a stage says."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "frozen_parameters")]
    return [parameter for module in modules for parameter in module.frozen_parameters()]


def trained_part(model: nn.Module, stage: StageConfig) -> str:
    """Return what a stage trains: as it says, but whole attention blocks where the mechanism has no features."""
    return "attention" if stage.train == "features" and not feature_parameters(model) else stage.train


def parameter_groups(model: nn.Module, stage: StageConfig, weight_decay: float) -> list[dict]:
    """Freeze what the stage does not train and group the rest for the optimizer.

    The mechanism's own parameters start from an arbitrary point while the copied weights start from good ones, so
    they learn faster, by the mechanism's ``feature_rate``, unless ``feature_learning_rate`` says otherwise. Biases,
    LayerNorm and features are not decayed. Layer i of L learns at ``layer_decay`` to the power of L - i, the
    embeddings at L + 1.
    """
    features = {id(parameter) for parameter in feature_parameters(model)}
    frozen = {id(parameter) for parameter in frozen_parameters(model)}
    part = trained_part(model, stage)
    num_layers = len(encoder_layers(model))
    groups: dict[tuple[str, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_feature = id(parameter) in features
        trained = {
            "features": is_feature,
            "attention": is_feature or ".attention." in name,
            "encoder": not name.endswith("word_embeddings.weight"),
            "all": True,
        }[part]
        trained = trained and id(parameter) not in frozen
        parameter.requires_grad_(trained)
        if trained:
            kind = "features" if is_feature else "plain" if any(part in name for part in NO_DECAY) else "decayed"
            depth = 0 if stage.layer_decay == 1 else _layers_above(name, num_layers)
            groups.setdefault((kind, depth), []).append(parameter)
    feature_rate = stage.feature_learning_rate or default_feature_rate(model) * stage.learning_rate
    settings = {
        "features": (feature_rate, 0.0),
        "decayed": (stage.learning_rate, weight_decay),
        "plain": (stage.learning_rate, 0.0),
    }
    found = []
    for kind, (base_rate, decay) in settings.items():
        for depth in sorted(depth for other, depth in groups if other == kind):
            rate = base_rate * stage.layer_decay**depth
            found.append({"params": groups[kind, depth], "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return found


def _layers_above(name: str, num_layers: int) -> int:
    """Return how many layers, the head one of them, stand between a parameter and the loss; 0 for the head's own."""
    layer = re.search(r"encoder\.layer\.(\d+)\.", name)
    if layer:
        return num_layers - int(layer[1])
    return num_layers + 1 if ".embeddings." in name else 0
