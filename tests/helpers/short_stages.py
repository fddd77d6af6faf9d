"""Stages for tests, and whether two of them ended in the same place."""

from dataclasses import replace

from torch import nn

from distill.config.schema import StageConfig, TrainingConfig

TRAINING = TrainingConfig(checkpoint_every=3, log_every=4)
LABELS = StageConfig(name="labels", epochs=2, learning_rate=0.005, losses={"labels": 1.0}, train="all", batch_size=6)
BOTH = replace(LABELS, name="both", losses={"logits": 0.7, "hidden_states": 0.5}, dropout=True)


def same_weights(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> bool:
    """Tell whether all weights of two models agree to a tolerance."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all((a.float() - b.float()).abs().max() <= tolerance for a, b in pairs)


def stage_of(*names: str, **settings: object) -> StageConfig:
    """Return a stage with these losses, each of weight 1."""
    return StageConfig(
        **{"name": "s", "epochs": 1, "learning_rate": 0.01, "losses": dict.fromkeys(names, 1.0)} | settings
    )
