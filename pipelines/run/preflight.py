"""The start of every run: open it and look for what would go wrong; with ``--check`` that is all."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.attention_fit import mechanism_of_student
from distill.config.copies_choice import NONE, read_choice
from distill.config.found import with_found
from distill.config.recipe import adopt
from distill.config.schema import AUTO, SCRATCH, Config, StageConfig
from distill.config.student_schema import FIT, StudentSettings
from distill.data.inspection import inspect_data
from distill.objectives.loss_fallbacks import replace_unsupported_losses
from distill.preflight.checks import (
    check_checkpoints,
    check_compiler,
    check_features,
    check_launcher,
    check_lengths,
    check_stages,
    check_student,
    check_tokenizers,
    check_versions,
    check_write_permission,
)
from distill.preflight.precision import check_precision
from distill.preflight.services import check_hub, check_trackers
from distill.tasks import TEXT
from distill.training.accelerator import check_same_precision, make_accelerator
from distill.training.launcher import Launcher, read_launcher, training_precision
from distill.training.run_folder import find_run_folder, saved_config
from distill.utils.cli import EXIT_USER_ERROR
from distill.utils.errors import UserError
from distill.utils.findings import ERROR, OK, WARNING, Finding, NotReadyError, print_findings
from pipelines.run.attention_fit import first_attention, kept_fit, trial_stage
from pipelines.run.banner import print_banner
from pipelines.run.context import DistillationSetup, RunContext, make_context, make_setup
from pipelines.run.copies_choice import new_choice, stages_of_choice
from pipelines.run.plan import plan_lines
from pipelines.run.publish import publish
from pipelines.run.recipe import apply_recipe
from pipelines.run.resources import look_at_disk, look_at_memory, print_memory_table, training_phases
from pipelines.run.search import first_shape, plan_search, still_open
from pipelines.run.stage_texts import count_stage_texts, load_asked_masked_lm
from pipelines.run.student import build_student
from pipelines.run.teacher import check_on_validation
from pipelines.run.text import open_text_run
from students import STUDENTS
from teachers.finetuning import label_free_start
from teachers.loading import load_tokenizer

TEXTS_FOR_TOKENIZERS = 100


def prepare_run(
    config: Config,
    report: Callable[[Iterable[Finding]], None],
    *,
    teacher_alone: bool = False,
    only_check: bool = False,
) -> tuple[RunContext, DistillationSetup] | None:
    """Open a run for its first phase, with everything looked at on the way; nothing is written.

    A finished run is pushed to ``hub.repo``, if that was not possible when it ended.

    Args:
        report: takes the findings of every step before the next one is taken; it raises to end the run.
        teacher_alone: no other phase follows now, and the plan that is printed leaves them out.
        only_check: whether a look is all.

    Returns:
        None if the run is finished.
    """
    launcher = read_launcher()
    saved, wanted = saved_config(config), config.training.mixed_precision
    config = config if saved is None else adopt(with_found(config, str(config.run_dir)), saved)
    precision = check_precision(config, launcher, kept=saved is not None and wanted == AUTO)
    training = replace(config.training, mixed_precision=training_precision(config, launcher))
    config = replace(config, training=training)
    config, replaced = replace_unsupported_losses(config, mechanism_of_student(config.student, STUDENTS))
    report([*replaced, *look_around(config, launcher, precision)])
    folder = find_run_folder(config)
    folder.check_student([stage.name for stage in config.stages])
    if folder.finished:
        accelerator = make_accelerator(config)
        accelerator.print(f"{folder.path} is finished; its report is {folder.path / 'report.html'}")
        if accelerator.is_main_process and not (teacher_alone or only_check):
            publish(config, folder)
        return None
    accelerator = make_accelerator(config)
    check_same_precision(accelerator)
    if config.task == TEXT:
        context, setup, student = open_text_run(config, accelerator, folder)
        report(look_at_language_models(context, setup, student))
        print_plan(context, setup, student, teacher_alone=teacher_alone)
        return context, setup
    context = make_context(config, accelerator, folder)
    setup = make_setup(context)
    print_banner(context, setup)
    search = plan_search(context, setup, only_look=only_check) if not teacher_alone else None
    asked, (context, setup) = context, first_shape(context, setup, search)
    context = first_attention(context, setup)
    student = build_student(context, setup.start, setup, quiet=True)
    context, setup, replaced = apply_recipe(context, setup, student)
    report(replaced)
    # Behind one another: where a model is refused, a command says that alone.
    looked = look_at_models(context, setup, student, asked.config.student)
    report(chain(inspect_data(context.task, config.data, context.splits), looked))
    print_plan(context, setup, student, teacher_alone=teacher_alone, asked=asked.config.student)
    return (context, setup) if only_check else still_open(asked, context, replace(setup, search=search))


def print_plan(
    context: RunContext,
    setup: DistillationSetup,
    student: PreTrainedModel,
    *,
    teacher_alone: bool,
    asked: StudentSettings | None = None,
) -> None:
    """Print what will be trained and about how long it takes; phases that are finished are left out.

    Args:
        asked: the student as it is configured, where mechanisms are still to be found.
    """
    if not context.run.accelerator.is_main_process:
        return
    baseline = [] if context.folder.result("baseline") is None else ["baseline"]
    finished = [*finished_stages(context, setup.stages), *baseline]
    left = [
        (stage, model)
        for stage, model in (*training_phases(context, setup, student), *trials(context, setup, student, asked))
        if stage.name not in finished and (stage.name == "teacher" or not teacher_alone)
    ]
    texts = count_stage_texts(context, setup).rows
    stages = [stage for stage in setup.stages if stage in [planned for planned, _ in left]]
    short = (f"warning: {finding.line}" for finding in check_lengths(stages, texts))
    print("\n".join([*plan_lines(context, setup, left), *short]), flush=True)


def trials(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel, asked: StudentSettings | None
) -> list[tuple[StageConfig, PreTrainedModel]]:
    """Return the short runs in which mechanisms, and copies, are still to be tried."""
    stages: list[StageConfig] = []
    if asked is not None and asked.attention == FIT:
        fit = kept_fit(context, setup, replace(context.config, student=asked))
        known = {each.attention for each in fit.tried} if fit else set()
        rows = count_stage_texts(context, setup).rows  # as the plan counts, copies too, so that the steps are right
        stages += [trial_stage(name, rows) for name in asked.fit_attentions if name not in known]
    augmentation = context.config.augmentation
    if augmentation.choose:
        choice = read_choice(context.folder.path)
        done = set()
        if choice is not None and choice.answers(context.config):
            done = {each.kind for each in choice.tried}
        left = [kind for kind in (NONE, *augmentation.kinds) if kind not in done]
        stages += [replace(stage, name=f"{stage.name}-{kind}") for kind in left for stage in stages_of_choice(setup)]
    return [(stage, student) for stage in stages]


def finished_stages(context: RunContext, stages: Iterable[StageConfig]) -> list[str]:
    """Return the names of the stages that will not be run again."""
    return context.folder.finished_phases(["teacher", *(stage.name for stage in stages)])[1:]


def check_run(config: Config, *, teacher_alone: bool = False) -> int:
    """Print what every check found and return the exit code, 2 if there is an error; nothing is trained."""
    try:
        opened = prepare_run(config, print_findings, teacher_alone=teacher_alone, only_check=True)
        if opened is not None:
            print_memory_table(*opened)
    except UserError as error:  # data or weights that cannot be read end the list
        with suppress(NotReadyError):
            print_findings([Finding(ERROR, " ".join(str(error).split()))])
        return EXIT_USER_ERROR
    except NotReadyError:
        return EXIT_USER_ERROR
    return 0


def look_around(config: Config, launcher: Launcher, precision: Iterable[Finding]) -> Iterator[Finding]:
    """Check what needs neither data nor models; ``precision`` is what was found of that already."""
    yield from check_versions()
    yield from check_launcher(config, launcher)
    yield from precision
    yield from check_compiler(launcher)
    yield from check_write_permission(config)
    yield from check_trackers(config)
    yield from check_hub(config)
    yield from check_checkpoints(Path(config.run_dir or ".") / "checkpoints", launcher)


def look_at_models(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel, asked: StudentSettings
) -> Iterator[Finding]:
    """Check teacher, copies, tokenizers, student as it will be, of settings as ``asked`` for, memory and disk."""
    yield look_at_teacher(context, setup)
    look_at_baseline(context, setup)
    yield from look_at_copies(context, setup)
    whose = "the teacher" if setup.other_encoder is None else "student.checkpoint"
    texts = context.splits.train.texts[:TEXTS_FOR_TOKENIZERS]
    yield from check_tokenizers(setup.tokenizer, other_tokenizers(context), texts, whose)
    yield from check_student(student, setup.train)
    yield from check_features(mechanism_of_student(asked, STUDENTS), asked)
    yield from check_stages(student, setup.stages)
    yield from look_at_memory(context, setup, student)
    yield from look_at_disk(context, setup, student)


def look_at_language_models(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel
) -> Iterator[Finding]:
    """Check the student as it will be, memory and disk."""
    settings = context.config.student
    yield from check_features(mechanism_of_student(settings, STUDENTS), settings)
    yield from check_stages(student, setup.stages)
    yield from look_at_memory(context, setup, student)
    yield from look_at_disk(context, setup, student)


def look_at_teacher(context: RunContext, setup: DistillationSetup) -> Finding:
    """Score a finished teacher; one that is not is looked at again when it is."""
    if not setup.source.is_trained:
        return Finding(OK, "teacher: label order, floor and finite outputs are checked after fine-tuning")
    try:
        check_on_validation(context, setup)
    except UserError as error:
        return Finding(ERROR, str(error))
    return Finding(OK, "teacher: outputs are finite, labels in the data's order, score above the floor")


def look_at_baseline(context: RunContext, setup: DistillationSetup) -> None:
    """Build what the baseline starts from where it has a checkpoint of its own, which else is read last of all.

    Raises:
        UserError: it cannot be read, or no student can be made of it.
    """
    config = context.config
    own = config.baseline.checkpoint not in (None, SCRATCH) and config.baseline.epochs != 0
    if own and context.folder.result("baseline") is None:
        start = label_free_start(config, context.task, context.splits, setup.start)
        try:
            build_student(context, start, setup, quiet=True)
        except UserError as error:
            raise UserError(f"baseline.checkpoint {config.baseline.checkpoint}: {error}") from error


def look_at_copies(context: RunContext, setup: DistillationSetup) -> Iterator[Finding]:
    """Check what makes copies, where there are stages left that read them.

    Raises:
        UserError: a masked language model that cannot be used, or a choice that no stage reads.
    """
    augmentation = context.config.augmentation
    if len(finished_stages(context, setup.stages)) == len(setup.stages):
        return
    load_asked_masked_lm(context, setup)
    if augmentation.choose:
        new_choice(context, setup)
    if augmentation.masked_lm is not None and "masked_lm" not in augmentation.kinds:
        line = f"augmentation.masked_lm {augmentation.masked_lm} has no effect: augmentation.kinds lack masked_lm"
        yield Finding(WARNING, line)


def other_tokenizers(context: RunContext) -> dict[str, PreTrainedTokenizerBase]:
    """Load the tokenizers of everything that is read or trained with the student's tokens."""
    config, folder = context.config, context.folder
    start = config.baseline.checkpoint
    checkpoints = {"baseline.checkpoint": start} if start not in (None, SCRATCH) else {}
    for name in finished_stages(context, config.stages):
        checkpoints[f"the student of stage {name}"] = str(folder.checked_model(name, "tokenizer*"))
    return {name: load_tokenizer(checkpoint) for name, checkpoint in checkpoints.items()}
