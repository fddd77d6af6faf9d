"""The stages of a run, one after the other: each is trained, or taken where it is finished."""

from contextlib import nullcontext

from transformers import PreTrainedModel

from distill.config.schema import EXACT_FORM, FULL, PACKED, StageConfig
from distill.data.batching import TokenizedExamples
from distill.data.packing import PACKED_TEXTS, pack
from distill.evaluation.predict import held_out_scorer, settle_threshold, validation_metrics
from distill.models.linear_form import linear_form
from distill.models.positions import positions_of
from distill.objectives.layer_fidelity import layer_fidelity
from distill.training.context import StageInputs
from distill.training.loop import StageTrainer
from distill.utils.files import copy_directory, remove
from pipelines.run.context import DistillationSetup, RunContext, StageTexts
from pipelines.run.phase import PhaseResult, record_phase
from pipelines.run.shared_stages import share, shared_folder, take_shared
from pipelines.run.stage_texts import read_stage_texts
from pipelines.run.student import build_student, load_student
from pipelines.run.width import differ_in_width
from students import StudentForSequenceClassification, exact_form
from teachers.loading import freeze
from teachers.output_cache import keep_outputs, stage_targets
from teachers.output_plan import is_read_later, is_worth_storing, read_later


def run_stages(context: RunContext, setup: DistillationSetup) -> StudentForSequenceClassification:
    """Take the student through every stage that is not finished, and return it."""
    folder, stages = context.folder, setup.stages
    names = [stage.name for stage in stages]
    finished = stages[: len(folder.finished_phases(names))]
    left = stages[len(finished) :]
    if left and context.run.accelerator.is_main_process:
        folder.forget(names[len(finished) + 1 :])
    if finished:
        student = load_student(context, folder.checked_model(finished[-1].name))
    else:
        student = build_student(context, setup.start, setup, stages[0].attention, full_width=stages[0].width == FULL)
    texts = read_stage_texts(context, setup) if left else StageTexts(setup.train, setup.for_teacher.train)
    before = finished[-1] if finished else stages[0]
    for stage in left:
        if (stage.attention, stage.width) != (before.attention, before.width):
            student = build_student(context, student, setup, stage.attention, full_width=stage.width == FULL)
        shared = shared_folder(context, setup, stage, texts)
        if take_shared(context, stage, shared):
            student = load_student(context, folder.model(stage.name))
        else:
            run_stage(context, setup, student, stage, texts)
            share(context, setup, stage, shared)
        before = stage
    if context.run.accelerator.is_main_process and not folder.student.exists():
        copy_directory(folder.model(stages[-1].name), folder.student)
    return student


def run_stage(
    context: RunContext,
    setup: DistillationSetup,
    student: StudentForSequenceClassification,
    stage: StageConfig,
    texts: StageTexts,
) -> None:
    """Train the student in place through one stage, measure what it bought and mark it finished."""
    run, folder = context.run, context.folder
    teacher, layer_map = stage_teacher(context, setup, student, stage)
    across = stage.targets == "teacher" and setup.other_encoder is not None
    plan, readings, index = setup.plan(stage), setup.readings, setup.stages.index(stage)
    cache_folder = folder.path / "checkpoints" / "teacher_outputs"
    fits = stage.targets == EXACT_FORM
    with linear_form(student) if fits else nullcontext():
        seen = packed_texts(context, student, setup.train) if stage.texts == PACKED else texts.examples
        targets = stage_targets(
            run.accelerator,
            teacher,
            plan,
            texts.for_teacher if across else seen,
            context.config.cache,
            cache_folder,
            epochs=stage.epochs,
            later=read_later(readings, index),
            worth_storing=is_worth_storing(readings, readings[index].group),
            owner=str(folder.path),
            own_tokens=across,
        )
        scorer = held_out_scorer(run, context.task, setup.held_out)
        inputs = StageInputs(seen, plan, targets.outputs, across_widths=differ_in_width(student, teacher))
        progress = StageTrainer(run, student, stage, inputs, folder.phase(stage.name), scorer).run()
        # A stage that fits a student to itself has left its layers where they were: what counts is how it is fitted.
        # With a teacher of other tokens no layer can be compared, but with the softmax student's.
        near = fits or setup.other_encoder is not None
        source, source_layers = (teacher, layer_map) if near else (setup.teacher, setup.layer_map)
        unseen = packed_texts(context, student, setup.held_out) if fits else setup.held_out
        fidelity = [] if across else layer_fidelity(source, student, source_layers, unseen)
    settle_threshold(context.task, student, setup.held_out, context.device, anew=True)
    _, metrics = validation_metrics(run, context.task, student, setup.validation)
    result = PhaseResult(stage, progress, metrics, fidelity, targets)
    record_phase(context, setup, student, result)
    targets.end()
    if run.accelerator.is_main_process and context.config.cache.dir is None and targets.folder is not None:
        if is_read_later(readings, index):
            keep_outputs(targets.folder, read_later(readings, index))
        else:
            remove(targets.folder)


def packed_texts(
    context: RunContext, student: StudentForSequenceClassification, examples: TokenizedExamples
) -> TokenizedExamples:
    """Return texts of all lengths up to the student's positions, put together from ``examples``."""
    return pack(examples, positions_of(student), PACKED_TEXTS, context.config.data.seed)


def stage_teacher(
    context: RunContext, setup: DistillationSetup, student: StudentForSequenceClassification, stage: StageConfig
) -> tuple[PreTrainedModel, list[int]]:
    """Return whose outputs a stage matches, and which of its layers stands behind each of the student's.

    Args:
        student: as it is before the stage.
    """
    if stage.targets == "teacher":
        return setup.teacher, setup.layer_map
    if stage.targets == EXACT_FORM:
        exact = exact_form(student)
        freeze(exact)
        return exact, list(range(len(setup.layer_map)))
    source = [each.name for each in setup.stages if each.attention == "softmax"][-1]
    softmax_student = load_student(context, context.folder.checked_model(source))
    freeze(softmax_student)
    return softmax_student, list(range(len(setup.layer_map)))
