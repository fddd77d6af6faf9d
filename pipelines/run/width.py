"""How wide the student of a run is, and the narrower model that it is made of."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedModel

from distill.config.schema import FULL, SOFTMAX_STUDENT, StageConfig
from distill.data.batching import padded_length
from distill.models.summaries import width_of
from distill.training.accelerator import on_main_process
from distill.utils.errors import UserError, first_line
from pipelines.run.context import DistillationSetup, RunContext
from students import StudentForSequenceClassification, student_from_teacher
from students.families import bert_settings
from students.narrowing import Sizes, find_sizes, first_units, narrow_student
from teachers.width_selection import select_width


def wanted_sizes(context: RunContext, source: PreTrainedModel, layers: list[int]) -> Sizes | None:
    """Return the sizes of a narrower student; None where it is as wide as what it is made of.

    Args:
        source: what it is made of.
        layers: of ``source``, one for each of the student's.

    Raises:
        UserError: it would be wider.
    """
    settings = context.config.student
    if (settings.hidden_size, settings.num_heads, settings.intermediate_size) == (None, None, None):
        return None
    own = SimpleNamespace(**bert_settings(source.config))
    try:
        return find_sizes(own, layers, settings.hidden_size, settings.num_heads, settings.intermediate_size)
    except ValueError as error:
        raise UserError(f"student.{first_line(error)}") from error


def narrowed(
    context: RunContext, setup: DistillationSetup, source: Any, layers: list[int], *, quiet: bool, role: str
) -> tuple[Any, bool]:
    """Return the narrower softmax student that the student is built of, and whether its head is drawn anew.

    Where the student is as wide as ``source``, that is returned as it is.

    Args:
        source: the teacher, or another encoder; or a softmax student.
        layers: of ``source``, one for each of the student's.
        quiet: measure nothing, for a student that is only looked at.
        role: what it is called where its sizes are printed: student, or baseline.
    """
    sizes = wanted_sizes(context, source, layers)
    if sizes is None:
        return source, False
    whole, is_new = source, False
    if not isinstance(source, StudentForSequenceClassification):
        whole, report = student_from_teacher(
            source,
            layer_map=range(source.config.num_hidden_layers),
            attention="softmax",
            seed=context.config.seed,
            positions=padded_length(context.config.data.max_length),
        )
        is_new = any(name.startswith("classifier.") for name in report.new)
    whole = whole.to(context.device)
    if quiet:
        return narrow_student(whole, layers, first_units(sizes, whole.config.hidden_size)), is_new
    was_training = whole.training
    whole.eval()
    seed = context.config.seed
    accelerator = context.run.accelerator
    kept = on_main_process(accelerator, lambda: select_width(whole, layers, sizes, setup.train, seed))
    whole.train(was_training)
    accelerator.print(f"{role}: {in_words(sizes, whole.config, layers)} are kept")
    return narrow_student(whole, layers, kept), is_new


def in_words(sizes: Sizes, config: Any, layers: list[int]) -> str:
    """Say how many dimensions, heads and units are left of how many, by layer where layers differ."""

    def count(numbers: list[int]) -> str:
        return str(numbers[0]) if len(set(numbers)) == 1 else ", ".join(str(number) for number in numbers)

    own = [config.of_layer(layer) for layer in layers]
    return (
        f"{sizes.hidden_size} of {config.hidden_size} hidden dimensions, "
        f"{count(sizes.num_heads)} of {count([each.num_attention_heads for each in own])} heads and "
        f"{count(sizes.intermediate_size)} of {count([each.intermediate_size for each in own])} feed-forward units"
    )


def differ_in_width(student: Any, other: Any) -> bool:
    """Tell whether layers of a student may be of another width than those of a model that it is compared with."""
    own, its = student.config, other.config
    return (own.hidden_size, own.head_size) != (width_of(other), getattr(its, "head_size", None)) or (
        own.head_size is not None and own.num_attention_heads != its.num_attention_heads
    )


def check_widths(stages: Sequence[StageConfig], setup: DistillationSetup, student: Any) -> None:
    """Refuse what a narrower student cannot do with a target of full width.

    Args:
        student: as wide as it will be.

    Raises:
        UserError: it is to read the target's activations, or to have its attention maps, and is narrower.
    """
    if setup.other_encoder is not None:  # whose summaries and decisions alone are compared
        return
    settings = SimpleNamespace(**bert_settings(setup.start.config))
    softmax = [stage for stage in stages if stage.attention == "softmax"]
    for stage in stages:
        of_full_width = stage.targets == "teacher" or (
            stage.targets == SOFTMAX_STUDENT and bool(softmax) and softmax[-1].width == FULL
        )
        if stage.width == FULL or not of_full_width:
            continue
        way_out = "match a softmax student of the same width: targets: softmax_student, behind a stage of it"
        if stage.inputs == "teacher" and student.config.hidden_size != settings.hidden_size:
            raise UserError(
                f"stages.{stage.name}.inputs is 'teacher': a student of width {student.config.hidden_size} cannot "
                f"read states of {settings.hidden_size}; use student, or {way_out}"
            )
        heads = student.config.num_attention_heads
        if "attention_map" in stage.losses and heads != settings.num_attention_heads:
            raise UserError(
                f"stages.{stage.name}.losses is 'attention_map': maps are compared head by head, and the student has "
                f"{heads} of {settings.num_attention_heads}; use value_relations, or {way_out}"
            )
