"""What a configuration leaves open, chosen now that data and teacher are known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedModel

from distill.config.attention_fit import mechanism_of_student
from distill.config.recipe import DECISIONS, LAYERS, SUMMARIES, Facts, Mechanism, choose_recipe
from distill.config.schema import EXACT_FORM, StageConfig
from distill.models.summaries import width_of
from distill.objectives.loss_fallbacks import replace_unsupported_losses
from distill.training.optimizer import feature_parameters
from distill.utils.errors import UserError
from distill.utils.findings import Finding
from pipelines.run.context import DistillationSetup, OtherEncoder, RunContext
from pipelines.run.width import check_widths, wanted_sizes
from students import STUDENTS


def apply_recipe(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel, *, quiet: bool = False
) -> tuple[RunContext, DistillationSetup, list[Finding]]:
    """Choose what the configuration leaves open, now that data and teacher are known, and the stages at this depth.

    Args:
        context: of the run.
        setup: without stages.
        student: as it will be; it is only looked at.
        quiet: print nothing, for a student that may be another one in the end.

    Returns:
        The same with the recipe, and what it had to replace.

    Raises:
        UserError: there are too few examples to choose anything from.
    """
    settings, teacher = context.config.student, setup.teacher
    lengths, for_teacher = _lengths(setup), _lengths(setup.for_teacher)
    across = setup.other_encoder
    matches = LAYERS if across is None else SUMMARIES if across.teacher_layers else DECISIONS
    facts = Facts(
        rows=len(setup.train),
        is_pair=len(context.task.text_columns) > 1,
        long_share=float((lengths > settings.exact_up_to).mean()) if settings.exact_up_to else 0.0,
        hidden_size=width_of(teacher),
        longest=int(max(lengths.max(), for_teacher.max())),
        matches=matches,
        unlabelled=0 if context.unlabelled is None else len(context.unlabelled),
        is_narrower=wanted_sizes(context, setup.start, setup.layer_map) is not None,
        starts_linear=setup.earlier is not None,
    )
    kind = mechanism_of_student(settings, STUDENTS)
    mechanism = Mechanism(kind.is_softmax, kind.trains_layers, bool(feature_parameters(student)))
    config, findings = replace_unsupported_losses(choose_recipe(context.config, facts, mechanism), kind)
    stages = config.stages
    if across is None:
        num_layers = int(teacher.config.num_hidden_layers)
        stages = stages_at_depth(stages, setup.layer_map, num_layers, is_narrower=facts.is_narrower)
    if setup.earlier is not None:
        stages = stages_of_started(stages)
        if not stages:
            raise UserError(
                f"student.checkpoint {settings.checkpoint} is linear already, and every stage puts the mechanism "
                "into softmax ones; add one without attention: softmax and inputs: teacher, or write stages: auto"
            )
        if len(stages) < len(config.stages) and not quiet:
            left = ", ".join(stage.name for stage in stages)
            context.run.accelerator.print(f"student: starts from {settings.checkpoint}; stages that are left: {left}")
    elif len(stages) < len(config.stages) and not quiet:
        full = " of full width" if facts.is_narrower else ""
        context.run.accelerator.print(
            f"student: as deep as the teacher, so that no stage{full} with attention softmax is needed"
        )
    check_widths(stages, setup, student)
    return replace(context, config=config), replace(setup, stages=stages), findings


def stages_at_depth(
    stages: tuple[StageConfig, ...], layer_map: Sequence[int], num_teacher_layers: int, *, is_narrower: bool = False
) -> tuple[StageConfig, ...]:
    """Return the stages that a student of this depth needs.

    With all of the teacher's layers a softmax student is the teacher itself: its stages, which would train what is
    right already, are left out, and the teacher is matched in its place. A student whose stages are all of that kind
    keeps them. A narrower one needs those that train it as narrow as it is.
    """
    if is_narrower:
        left = tuple(stage for stage in stages if stage.width is None)
    else:
        left = tuple(replace(stage, targets="teacher") for stage in stages if stage.attention != "softmax")
    return left if left and list(layer_map) == list(range(num_teacher_layers)) else stages


def stages_of_started(stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
    """Return the stages that a student needs whose layers have been fitted to the teacher's encoder already.

    Those that put the mechanism into softmax layers, block by block, would take it back to where it came from. Stages
    that fit a student to its own exact form stay.
    """
    left = [stage for stage in stages if stage.attention != "softmax" and stage.width is None]
    left = [stage for stage in left if stage.inputs == "student" or stage.targets == EXACT_FORM]
    return tuple(replace(stage, targets="teacher") if stage.targets != EXACT_FORM else stage for stage in left)


def _lengths(read: DistillationSetup | OtherEncoder) -> np.ndarray:
    """Return the tokens of the texts that the stages read, of those without labels of a sample: (n,)."""
    return np.concatenate([part.lengths for part in (read.train, read.unlabelled) if part is not None])
