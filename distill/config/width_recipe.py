"""The stages of a narrower student: fewer layers first, then fewer dimensions, heads and units, then the mechanism."""

from dataclasses import replace

from distill.config.schema import FULL, StageConfig


def add_width(stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
    """Return the stages of a recipe with those in which its student is narrowed, in its own way: layers, decisions.

    What it does first, with softmax attention, is done twice: at full width, so that what the decisions need is
    measured on a student that makes good ones, and again once it is narrower.

    Args:
        stages: of a student as wide as its teacher.
    """
    first = tuple(stage for stage in stages if stage.attention == "softmax")
    rest = stages[len(first) :]
    if not first:  # a student with softmax attention has no other stages, and the narrower one is the result
        first, rest = tuple(replace(stage, attention="softmax") for stage in stages), ()
    attention = "softmax" if rest else None
    depth = tuple(
        replace(stage, name=renamed(stage.name, "depth"), width=FULL, keep_best_epoch=False) for stage in first
    )
    width = tuple(replace(stage, name=renamed(stage.name, "width"), attention=attention) for stage in first)
    return *depth, *width, *rest


def renamed(name: str, kind: str) -> str:
    """Return the name of a stage of layers or of decisions, when it makes a student less deep or less wide."""
    return f"{kind}_logits" if name.endswith("logits") else kind
