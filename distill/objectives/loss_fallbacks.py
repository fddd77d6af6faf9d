"""Which losses can match a mechanism with its teacher, and what takes the place of those that cannot.

The output of the attention block can always be matched. Attention maps, contexts per head and relations of values
exist in some mechanisms only; one list of stages serves all of them, so that a sweep needs no list for each.
"""

from dataclasses import replace
from typing import Any

from distill.config.schema import RELATIONS, Config
from distill.utils.findings import WARNING, Finding

STAND_IN = "attention_output"


def replaceable(name: str, config: Config, mechanism: Any) -> bool:
    """Tell whether the loss reads something that the mechanism, with the options of ``config``, does not compute."""
    exists = {
        "attention_map": mechanism.has_map_with(config.student.attention_options),
        "attention_context": mechanism.has_context,
    } | {relations: relations.removesuffix("_relations") in mechanism.projections for relations in RELATIONS}
    return not exists.get(name, True)


def replace_unsupported_losses(config: Config, mechanism: Any) -> tuple[Config, list[Finding]]:
    """Put the attention output, with the same weight, in the place of every loss that the mechanism cannot have.

    Args:
        mechanism: what `distill.config.attention_fit.mechanism_of_student` finds behind ``config.student``;
            ``check_config`` has refused what nothing can replace.

    Returns:
        The configuration that is run, and a warning if it is another one.
    """
    if not mechanism.trains_layers:
        return config, []
    missing: dict[str, None] = {}
    stages = []
    for stage in config.stages:
        losses: dict[str, float] = {}
        for name, weight in stage.losses.items():
            if replaceable(name, config, mechanism):
                missing[name] = None
                name = STAND_IN
            losses[name] = losses.get(name, 0.0) + weight
        stages.append(replace(stage, losses=losses))
    if not missing:
        return config, []
    line = f"stages: {config.student.attention_name} attention has no {' and no '.join(missing)}; {STAND_IN} stands in"
    return replace(config, stages=tuple(stages)), [Finding(WARNING, line)]
