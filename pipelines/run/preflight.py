"""The start of every run: open it and look for what would go wrong; with ``--check`` that is all."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.recipe import adopt
from distill.config.schema import AUTO, EXACT_FORM, PACKED, SCRATCH, Config, StageConfig
from distill.data.augmentation import join
from distill.data.batching import padded_length
from distill.data.columns import found_in_words
from distill.models.linear_form import linear_form
from distill.objectives.loss_fallbacks import with_legal_losses
from distill.objectives.stages import parameter_groups, plan_stage
from distill.preflight.checks import (
    check_checkpoints,
    check_compiler,
    check_disk,
    check_features,
    check_launcher,
    check_lengths,
    check_memory,
    check_precision,
    check_stages,
    check_student,
    check_tokenizers,
    check_versions,
    check_write_permission,
    memory_table,
)
from distill.preflight.memory_estimate import (
    FLOAT,
    Memory,
    Sharding,
    activation_memory,
    available_host_memory,
    available_memory,
    count,
    run_disk,
    state_memory,
)
from distill.reporting.banner import data_banner
from distill.training.accelerator import (
    Launcher,
    autocast_dtype,
    check_same_precision,
    current_sharding,
    make_accelerator,
    read_launcher,
    training_precision,
)
from distill.training.run_folder import find_run_folder, saved_config
from distill.utils.cli import EXIT_USER_ERROR
from distill.utils.errors import UserError
from distill.utils.findings import ERROR, OK, Finding, NotReadyError, show
from pipelines.run.context import Lesson, Work, make_student, open_lesson, open_run, with_recipe
from pipelines.run.plan import plan_lines
from pipelines.run.stages import baseline_stage, check_on_validation, more_text
from students import STUDENTS
from teachers.finetuning import finetuning_stage
from teachers.loading import load_tokenizer
from teachers.outputs import disk_needed

TEXTS_FOR_TOKENIZERS = 100


def open_checked(config: Config, report: Callable[[Iterable[Finding]], None]) -> tuple[Work, Lesson] | None:
    """Open a run for its first phase, with everything looked at on the way; nothing is written.

    Args:
        report: takes the findings of every step before the next one is taken; it raises to end the run.

    Returns:
        None if the run is finished.
    """
    launcher = read_launcher()
    saved, wanted = saved_config(config), config.training.mixed_precision
    config = config if saved is None else adopt(config, saved)
    precision = check_precision(config, launcher, kept=saved is not None and wanted == AUTO)
    training = replace(config.training, mixed_precision=training_precision(config, launcher))
    config = replace(config, training=training)
    config, replaced = with_legal_losses(config, STUDENTS[config.student.attention])
    report([*replaced, *look_around(config, launcher, precision)])
    folder = find_run_folder(config)
    if folder.finished:
        accelerator = make_accelerator(config)
        accelerator.print(f"{folder.path} is finished; its report is {folder.path / 'report.html'}")
        return None
    accelerator = make_accelerator(config)
    check_same_precision(accelerator)
    work = open_run(config, accelerator, folder)
    lesson = open_lesson(work)
    print_banner(work, lesson)
    work, lesson, replaced = with_recipe(work, lesson)
    report(replaced)
    report(look_at_models(work, lesson))
    print_plan(work, lesson)
    return work, lesson


def print_plan(work: Work, lesson: Lesson) -> None:
    """Print what will be trained and about how long it takes; phases that are finished are left out."""
    if not work.run.accelerator.is_main_process:
        return
    student, _ = make_student(work, lesson.teacher, lesson)
    left = [
        (stage, model)
        for stage, model in training_phases(work, lesson, student)
        if work.folder.result(stage.name) is None
    ]
    texts = round(len(lesson.train) * more_text(work.config, lesson))
    stages = [stage for stage in lesson.stages if work.folder.result(stage.name) is None]
    short = (f"warning: {finding.line}" for finding in check_lengths(stages, texts))
    print("\n".join([*plan_lines(work, lesson, left), *short]), flush=True)


def check_run(config: Config) -> int:
    """Print what every check found and return the exit code, 2 if there is an error; nothing is trained."""
    try:
        opened = open_checked(config, show)
        if opened is not None:
            print_memory_table(*opened)
    except UserError as error:  # data or weights that cannot be read end the list
        with suppress(NotReadyError):
            show([Finding(ERROR, " ".join(str(error).split()))])
        return EXIT_USER_ERROR
    except NotReadyError:
        return EXIT_USER_ERROR
    return 0


def look_around(config: Config, launcher: Launcher, precision: Iterable[Finding]) -> Iterator[Finding]:
    """Check what needs neither data nor models; ``precision`` is what was found of that already."""
    yield from check_versions()
    yield from check_launcher(config, launcher)
    yield from precision
    yield from check_compiler(launcher, Path(get_default_build_root()))
    yield from check_write_permission(config)
    yield from check_checkpoints(Path(config.run_dir or ".") / "checkpoints", launcher)


def look_at_models(work: Work, lesson: Lesson) -> Iterator[Finding]:
    """Check teacher, tokenizers, student, memory and disk."""
    yield look_at_teacher(work, lesson)
    yield from check_tokenizers(
        lesson.tokenizer, other_tokenizers(work), work.splits.train.texts[:TEXTS_FOR_TOKENIZERS]
    )
    student, _ = make_student(work, lesson.teacher, lesson)
    yield from check_student(student, lesson.train)
    yield from check_features(student, work.config.student)
    yield from check_stages(student, lesson.stages)
    yield from look_at_memory(work, lesson, student)
    if work.run.accelerator.is_main_process:
        yield from check_disk(disk_by_folder(work, lesson, student))


def look_at_teacher(work: Work, lesson: Lesson) -> Finding:
    """Score a finished teacher; one that is not is looked at again when it is."""
    if not lesson.source.finished:
        return Finding(OK, "teacher: label order, floor and finite outputs are checked after fine-tuning")
    try:
        check_on_validation(work, lesson)
    except UserError as error:
        return Finding(ERROR, str(error))
    return Finding(OK, "teacher: outputs are finite, labels in the data's order, score above the floor")


def other_tokenizers(work: Work) -> dict[str, PreTrainedTokenizerBase]:
    """Load the tokenizers of everything that is read or trained with the teacher's tokens."""
    config, folder = work.config, work.folder
    start = config.baseline.checkpoint
    checkpoints = {"baseline.checkpoint": start} if start not in (None, SCRATCH) else {}
    for stage in config.stages:
        if folder.result(stage.name) is not None:
            checkpoints[f"the student of stage {stage.name}"] = str(folder.phase(stage.name) / "student")
    return {name: load_tokenizer(checkpoint) for name, checkpoint in checkpoints.items()}


def training_phases(work: Work, lesson: Lesson, student: PreTrainedModel) -> list[tuple[StageConfig, PreTrainedModel]]:
    """Return every phase that trains, with a model of the kind that it trains."""
    teacher = [] if lesson.source.finished else [(finetuning_stage(work.config), lesson.teacher)]
    stages = (*lesson.stages, baseline_stage(work.config, lesson))
    return [*teacher, *((stage, student) for stage in stages if stage.epochs)]


def look_at_memory(work: Work, lesson: Lesson, student: PreTrainedModel) -> Iterator[Finding]:
    """Check the phase that needs most."""
    sharding = current_sharding(work.run.accelerator)
    name, needs = largest_phase(work, lesson, student)
    local = read_launcher().local_processes
    free, host = available_memory(work.device, local), available_host_memory() // local
    yield from check_memory(name, needs(sharding), sharding, work.device.type, free, host)


def largest_phase(work: Work, lesson: Lesson, student: PreTrainedModel) -> tuple[str, Callable[[Sharding], Memory]]:
    """Return the phase that needs most memory where one process trains, and its memory under any sharding."""
    found = {
        stage.name: phase_memory(work, lesson, model, stage) for stage, model in training_phases(work, lesson, student)
    }
    name = max(found, key=lambda phase: found[phase](Sharding()).total)
    return name, found[name]


def phase_memory(
    work: Work, lesson: Lesson, model: PreTrainedModel, stage: StageConfig
) -> Callable[[Sharding], Memory]:
    """Return what one process needs for the longest batch of a phase, as a function of the sharding."""
    parameter_groups(model, stage, work.config.training.weight_decay)  # marks what is trained
    parameters, trained = count(model)
    resident = 0 if model is lesson.teacher else FLOAT * count(lesson.teacher)[0]
    longest = int(model.config.max_position_embeddings or 0) if stage.texts == PACKED else lesson.train.lengths.max()
    length = padded_length(int(longest))
    with linear_form(model) if stage.targets == EXACT_FORM else nullcontext():
        one, more = activation_memory(model, length, autocast_dtype(work.run.accelerator))
    plan = plan_stage(stage, lesson.layer_map, int(lesson.teacher.config.num_hidden_layers))
    targets = sum(map(len, plan.teacher.values())) * length * int(lesson.teacher.config.hidden_size or 0) * FLOAT

    def needs(sharding: Sharding) -> Memory:
        examples = -(-stage.batch_size // (sharding.processes * work.config.training.gradient_accumulation))
        return state_memory(parameters, trained, resident, one + (examples - 1) * more + examples * targets, sharding)

    return needs


def print_banner(work: Work, lesson: Lesson) -> None:
    """Print what the run is about to learn from."""
    data = work.config.data
    splits = {"train": lesson.train, "held-out train": lesson.held_out, **lesson.validation}
    if lesson.other is not None:
        splits["other tasks"] = lesson.other
    found = found_in_words(work.task, data.text_columns, data.label_column)
    lines = data_banner(work.task, splits, lesson.tokenizer, data.max_length, found)
    work.run.accelerator.print("\n".join(lines))


def print_memory_table(work: Work, lesson: Lesson) -> None:
    """Print what other ways to share out training would need."""
    student, _ = make_student(work, lesson.teacher, lesson)
    name, needs = largest_phase(work, lesson, student)
    half = work.run.accelerator.mixed_precision != "no"
    work.run.accelerator.print("\n".join([f"\nphase {name}", *memory_table(needs, half)]))


def disk_by_folder(work: Work, lesson: Lesson, student: PreTrainedModel) -> dict[Path, int]:
    """Return what the run will still write, by folder."""
    config, path = work.config, work.folder.path
    lengths = []
    for stage, model in training_phases(work, lesson, student):
        parameter_groups(model, stage, config.training.weight_decay)
        weights = stage.average_epochs if stage.average_epochs > 1 else 0
        lengths.append((*count(model), 1 + math.ceil(stage.epochs) if stage.keep_best_epoch else weights))
    plans = [
        plan_stage(stage, lesson.layer_map, int(lesson.teacher.config.num_hidden_layers)) for stage in lesson.stages
    ]
    shared = Path(config.cache.dir) if config.cache.dir is not None else None
    known = shared if lesson.source.finished else None
    dtype = autocast_dtype(work.run.accelerator)
    others = [] if lesson.other is None else [lesson.other]
    copies = config.augmentation.copies or 0
    examples = join([*[lesson.train] * (1 + copies), *others])  # as long as what the stages read
    cache = disk_needed(lesson.teacher, plans, examples, config.cache.max_gigabytes, known, dtype)
    models = run_disk(count(lesson.teacher)[0], count(student)[0], len(lesson.stages) + 2, lengths, path)
    return {path: models + cache} if shared is None else {path: models, shared: cache}
