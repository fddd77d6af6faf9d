"""The phases of a run, in order: teacher, stages, baseline. Each is skipped once it is finished."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from distill.config.schema import EXACT_FORM, IMPORTANCE, PACKED, SCRATCH, Config, StageConfig
from distill.data.augmentation import augment, join
from distill.data.batching import TokenizedExamples
from distill.data.packing import PACKED_TEXTS, pack
from distill.data.splits import fingerprint
from distill.evaluation.predict import held_out_scorer, logits_of, validation_metrics
from distill.models.linear_form import linear_form
from distill.objectives.capture_plan import CapturePlan, plan_stage
from distill.objectives.layer_fidelity import layer_fidelity
from distill.training.accelerator import flush_trackers, main_process_first, on_main_process, start_trackers
from distill.training.loop import Progress, train
from distill.training.run_folder import create_run_folder, lock_run_folder, save_model
from distill.utils.findings import WARNING, Finding, raise_on_error
from pipelines.run.context import DistillationSetup, RunContext, build_student, load_student
from pipelines.run.shared_stages import share, shared_folder, take_shared
from students import StudentForSequenceClassification, exact_form
from teachers.checks import calibration_warning, check_teacher, progress_warning
from teachers.finetuning import label_free_start, prepare_teacher
from teachers.layer_selection import most_needed_layers
from teachers.loading import freeze, weights_checksum
from teachers.output_cache import TeacherTargets, stage_targets


def finetune_teacher(context: RunContext, setup: DistillationSetup) -> DistillationSetup:
    """Bring the teacher to its end, check one that has only now learned the task, and choose among its layers.

    The run folder is made here, when everything that can be refused without training has been looked at: a folder
    left behind by a mistake would refuse the corrected command.
    """
    make_run_folder(context)
    if not setup.is_ours:
        prepare_teacher(
            context.run, context.config, context.task, setup.source, setup.train, setup.held_out, context.folder
        )
    freeze(setup.teacher)
    if not setup.source.finished:
        check_on_validation(context, setup)
        warn_of_teacher(context, setup)
    if context.config.student.layer_map != IMPORTANCE:
        return setup
    num_layers = context.config.student.num_layers
    layer_map = on_main_process(
        context.run.accelerator, lambda: most_needed_layers(setup.teacher, setup.train, num_layers)
    )
    context.run.accelerator.print(f"student: starts from layers {layer_map} of the teacher, which needs them most")
    return replace(setup, layer_map=layer_map)


def make_run_folder(context: RunContext) -> None:
    """Make the run folder and open TensorBoard in it."""
    if context.run.accelerator.is_main_process:
        weights = {
            f"{section}.checkpoint": checkpoint
            for section in ("teacher", "baseline")
            if (checkpoint := getattr(context.config, section).checkpoint) is not None
        }
        inputs = {name: weights_checksum(checkpoint) for name, checkpoint in weights.items()}
        create_run_folder(context.config, context.folder, fingerprint(context.splits) | inputs)
        lock_run_folder(context.folder)
    context.run.accelerator.wait_for_everyone()
    start_trackers(context.run.accelerator, context.config)


def check_on_validation(context: RunContext, setup: DistillationSetup) -> None:
    """Print the teacher's score on validation and refuse one that has nothing to teach."""
    task, margin = context.task, context.config.teacher.margin_over_majority
    logits, metrics = validation_metrics(context.run, task, setup.teacher, setup.validation)
    context.run.accelerator.print(f"teacher: {in_words(metrics)} on validation")
    for name, split_logits in logits.items():
        check_teacher(task, split_logits, setup.validation[name].labels, metrics[task.main_metric], margin)


def warn_of_teacher(context: RunContext, setup: DistillationSetup) -> None:
    """Say what of a teacher that was fine-tuned here makes it a worse one than it could be."""
    metric = context.task.main_metric
    result = context.folder.result("teacher") or {}
    lines = [progress_warning([metrics[metric] for metrics in result.get("held_out", [])])]
    if not context.task.is_regression:
        logits = logits_of(context.run, setup.teacher, setup.held_out)
        lines.append(calibration_warning(logits, setup.held_out.labels))
    raise_on_error([Finding(WARNING, line) for line in lines if line])


def run_stages(context: RunContext, setup: DistillationSetup) -> StudentForSequenceClassification:
    """Take the student through every stage that is not finished, and return it."""
    folder, stages = context.folder, setup.stages
    finished = [stage for stage in stages if folder.result(stage.name) is not None]
    left = stages[len(finished) :]
    if finished:
        student = load_student(context, folder.phase(finished[-1].name) / "student")
    else:
        student = build_student(context, setup.teacher, setup, stages[0].attention)
    examples = augmented_train(context, setup) if left else setup.train
    before = finished[-1] if finished else stages[0]
    for stage in left:
        if stage.attention != before.attention:
            student = build_student(context, student, setup)
        shared = shared_folder(context, setup, stage, examples)
        if take_shared(context, stage, shared):
            student = load_student(context, folder.phase(stage.name) / "student")
        else:
            run_stage(context, setup, student, stage, examples)
            share(context, stage, shared)
        before = stage
    if context.run.accelerator.is_main_process and not folder.student.exists():
        save_model(student, setup.tokenizer, folder.student)
    return student


def augmented_train(context: RunContext, setup: DistillationSetup) -> TokenizedExamples:
    """Return the train examples with the copies, which the subset's seed decides, and the texts of other tasks."""
    config = context.config
    words: Any = setup.teacher.get_input_embeddings().weight

    def read() -> TokenizedExamples:
        settings, checkpoint = config.augmentation, config.teacher.checkpoint
        own = augment(setup.train, settings, setup.tokenizer, words, checkpoint, config.data.seed)
        return own if setup.other is None else join([own, setup.other])

    return on_main_process(context.run.accelerator, read)


def more_text(config: Config, setup: DistillationSetup) -> float:
    """Return how many texts the stages read for every one that the baseline does."""
    others = 0 if setup.other is None else len(setup.other)
    return 1 + (config.augmentation.copies or 0) + others / len(setup.train)


def run_stage(
    context: RunContext,
    setup: DistillationSetup,
    student: StudentForSequenceClassification,
    stage: StageConfig,
    examples: TokenizedExamples,
) -> None:
    """Train the student in place through one stage, measure what it bought and mark it finished."""
    run, folder = context.run, context.folder
    teacher, layer_map = stage_teacher(context, setup, student, stage)
    plan = plan_stage(stage, layer_map, int(teacher.config.num_hidden_layers))
    cache_folder = folder.path / "checkpoints" / "teacher_outputs"
    fits = stage.targets == EXACT_FORM
    with linear_form(student) if fits else nullcontext():
        seen = packed_texts(context, student, setup.train) if stage.texts == PACKED else examples
        targets = stage_targets(run.accelerator, teacher, plan, seen, context.config.cache, cache_folder)
        scorer = held_out_scorer(run, context.task, setup.held_out)
        progress = train(run, student, stage, plan, seen, folder.phase(stage.name), scorer, targets.outputs)
        # A stage that fits a student to itself has left its layers where they were: what counts is how it is fitted.
        source, source_layers = (teacher, layer_map) if fits else (setup.teacher, setup.layer_map)
        unseen = packed_texts(context, student, setup.held_out) if fits else setup.held_out
        fidelity = layer_fidelity(source, student, source_layers, unseen)
    record_phase(context, setup, student, stage, progress, fidelity, targets, folder.phase(stage.name) / "student")


def packed_texts(
    context: RunContext, student: StudentForSequenceClassification, examples: TokenizedExamples
) -> TokenizedExamples:
    """Return texts of all lengths up to the student's positions, put together from ``examples``."""
    return pack(examples, int(student.config.max_position_embeddings), PACKED_TEXTS, context.config.data.seed)


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
    softmax_student = load_student(context, context.folder.phase(source) / "student")
    freeze(softmax_student)
    return softmax_student, list(range(len(setup.layer_map)))


def train_baseline(context: RunContext, setup: DistillationSetup) -> StudentForSequenceClassification | None:
    """Train the same student on labels alone; None where the configuration wants no baseline."""
    config, folder = context.config, context.folder
    if config.baseline.epochs == 0:
        return None
    if folder.result("baseline") is not None:
        return load_student(context, folder.baseline)
    start = main_process_first(
        context.run.accelerator, lambda: label_free_start(config, context.task, context.splits, setup.teacher)
    )
    baseline = build_student(context, start, setup)
    stage = baseline_stage(config, setup)
    scorer = held_out_scorer(context.run, context.task, setup.held_out)
    progress = train(context.run, baseline, stage, CapturePlan(), setup.train, folder.phase("baseline"), scorer)
    record_phase(context, setup, baseline, stage, progress, [], TeacherTargets(None), folder.baseline)
    return baseline


def baseline_stage(config: Config, setup: DistillationSetup) -> StageConfig:
    """Return the training of the baseline, on labels alone; by default it sees as many examples as all stages do."""
    epochs = config.baseline.epochs
    read = sum(stage.epochs for stage in setup.stages if stage.texts != PACKED)
    in_stages = max(1, round(read * more_text(config, setup)))
    untrained = config.teacher.checkpoint is None or config.baseline.checkpoint == SCRATCH
    return StageConfig(
        name="baseline",
        epochs=in_stages if epochs is None else epochs,
        learning_rate=config.baseline.learning_rate,
        losses={"labels": 1.0},
        train="all" if untrained else "encoder",
        dropout=True,
        batch_size=config.baseline.batch_size,
        keep_best_epoch=True,
    )


def record_phase(
    context: RunContext,
    setup: DistillationSetup,
    model: StudentForSequenceClassification,
    stage: StageConfig,
    progress: Progress,
    fidelity: Sequence[Mapping[str, float]],
    targets: TeacherTargets,
    destination: Path,
) -> None:
    """Score a trained model on validation, print and log the phase, save the model and mark the phase finished."""
    _, metrics = validation_metrics(context.run, context.task, model, setup.validation)
    epochs = min(stage.epochs, progress.epoch)  # of the last one perhaps a part
    saved = targets.seconds_saved(epochs)
    examples_per_second = progress.examples / progress.seconds
    result = {
        "name": stage.name,
        "seconds": progress.seconds,
        "checkpoint_seconds": progress.checkpoint_seconds,
        "examples_per_second": examples_per_second,
        "metrics": metrics,
        "fidelity": list(fidelity),
        "epochs": epochs,
        "best_epoch": progress.best_epoch if stage.keep_best_epoch else None,
        "held_out": progress.held_out,
        "teacher_cache": {
            "gigabytes": targets.gigabytes,
            "seconds_per_pass": targets.seconds_per_pass,
            "seconds_saved": saved,
        },
        "history": progress.history,
    }
    cache = f"; teacher outputs from disk saved {saved:.0f} s" if saved else ""
    context.run.accelerator.print(
        f"{stage.name}: {in_words(metrics)} on validation; {progress.seconds:.0f} s, "
        f"{examples_per_second:.0f} examples/s{cache}"
    )
    values = {f"{stage.name}/validation_{name}": value for name, value in metrics.items()}
    for layer in fidelity:
        for kind in ("attention_output", "hidden_states"):
            values[f"{stage.name}/fidelity_{kind}/layer_{layer['layer']}"] = layer[kind]
    context.run.accelerator.log(values, step=progress.global_step)
    if context.run.accelerator.is_main_process:
        flush_trackers(context.run.accelerator)
        save_model(model, setup.tokenizer, destination)
        context.folder.finish(stage.name, result)
    context.run.accelerator.wait_for_everyone()


def in_words(metrics: Mapping[str, float]) -> str:
    """Return metrics as `accuracy 91.2, f1 88.0`, in percent."""
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())
