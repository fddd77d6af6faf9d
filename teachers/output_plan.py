"""Which outputs of which teacher the stages of a run read, and which of them are worth their place on disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.config.schema import EXACT_FORM, StageConfig
from distill.objectives.capture_plan import CapturePlan, plan_across_encoders, plan_stage
from teachers.output_format import Output, outputs_of

READ_IN_PART = 0.5
"""Passes of a stage below which its teacher is asked batch by batch: most of what a cache holds would never be read.
Of two stages that share a cache either one may read half."""
Group = tuple[str, str]
"""Whose outputs, on which texts: stages of one group read the same arrays."""


@dataclass(frozen=True)
class Reading:
    """What one stage reads of its teacher."""

    group: Group
    outputs: frozenset[Output]
    needs_logits: bool
    epochs: float


def plan_for(
    stage: StageConfig,
    layer_map: Sequence[int],
    num_teacher_layers: int,
    summary_layers: Sequence[int] | None = None,
) -> CapturePlan:
    """Return what a stage captures, whoever its targets are: a student is matched layer by layer.

    Args:
        stage: any of the run's.
        layer_map: the layer behind each of the student's, of the teacher or of another encoder.
        num_teacher_layers: of the teacher.
        summary_layers: where that is another encoder, the layers of the teacher whose summaries are matched, as
            `distill.objectives.capture_plan.summary_targets` gives them.
    """
    depth = len(layer_map)
    if stage.targets != "teacher":
        return plan_stage(stage, range(depth), depth)
    if summary_layers is not None:
        return plan_across_encoders(stage, depth, summary_layers)
    return plan_stage(stage, layer_map, num_teacher_layers)


def plan_readings(
    stages: Sequence[StageConfig],
    layer_map: Sequence[int],
    num_teacher_layers: int,
    summary_layers: Sequence[int] | None = None,
) -> list[Reading]:
    """Return what every stage reads, in order; arguments as in :func:`plan_for`."""
    return [_reading(stage, plan_for(stage, layer_map, num_teacher_layers, summary_layers)) for stage in stages]


def _reading(stage: StageConfig, plan: CapturePlan) -> Reading:
    # The student's own exact form is another teacher in every stage.
    whose = f"{EXACT_FORM} of {stage.name}" if stage.targets == EXACT_FORM else stage.targets
    if stage.epochs < READ_IN_PART:  # nothing from disk
        return Reading((whose, stage.texts), frozenset(), needs_logits=False, epochs=stage.epochs)
    outputs = {output for layers in outputs_of(plan).values() for output in layers}
    return Reading((whose, stage.texts), frozenset(outputs), plan.needs_logits, stage.epochs)


def is_worth_storing(readings: Sequence[Reading], group: Group) -> bool:
    """Tell whether layer outputs on disk spare the teacher a part of its work.

    On a CPU reading is 16 to 30 times as fast as computing (teachers of 2 to 6 layers), so that passes over the texts
    are counted: with outputs on disk the teacher makes one. Without them it makes as many as the stages have epochs,
    and one more for stages that read logits alone, which are kept in any case. It is a rule and no clock: a run that
    is resumed has to decide as it did.
    """
    own = [reading for reading in readings if reading.group == group]
    others = any(reading.needs_logits and not reading.outputs for reading in own)
    return sum(reading.epochs for reading in own if reading.outputs) + others > 1


def read_later(readings: Sequence[Reading], index: int) -> frozenset[Output]:
    """Return what stages behind number ``index`` read of the same teacher, for one pass to compute all."""
    group = readings[index].group
    return frozenset().union(*(reading.outputs for reading in readings[index + 1 :] if reading.group == group))


def is_read_later(readings: Sequence[Reading], index: int) -> bool:
    """Tell whether a stage behind number ``index`` reads anything of the same teacher."""
    group = readings[index].group
    return any(
        reading.group == group and (reading.outputs or reading.needs_logits) for reading in readings[index + 1 :]
    )
