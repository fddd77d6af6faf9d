"""What changes from step to step of a stage: learning rate, temperature, weights of losses."""

import dataclasses

import torch

from distill.config.schema import StageConfig


def learning_rate_factor(step: int, total_steps: int, warmup: float) -> float:
    """Return the share of the peak learning rate: linear rise over ``warmup`` of the steps, linear fall to 0."""
    warmup_steps = warmup * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return max(0.0, (total_steps - step) / max(1.0, total_steps - warmup_steps))


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, total_steps: int, warmup: float) -> None:
    """Set every group's learning rate to its own peak times the share of this step."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * learning_rate_factor(step, total_steps, warmup)


def scheduled(stage: StageConfig, step: int, total_steps: int) -> StageConfig:
    """Return the stage with the temperature and the weights of this step: in a straight line from first to last."""
    share = step / max(1, total_steps - 1)
    final_temperature = stage.temperature if stage.final_temperature is None else stage.final_temperature
    final = stage.losses | (stage.final_losses or {})
    return dataclasses.replace(
        stage,
        temperature=stage.temperature + share * (final_temperature - stage.temperature),
        losses={name: weight + share * (final[name] - weight) for name, weight in stage.losses.items()},
    )
