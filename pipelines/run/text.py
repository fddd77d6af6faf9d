"""A run of task text: its data in windows, its teacher, and the phases, which are those of every run."""

from dataclasses import replace

from transformers import PreTrainedModel

from distill.config.schema import Config
from distill.config.text_recipe import choose_text_recipe
from distill.data.text_corpus import VALIDATION, load_text
from distill.data.text_parts import TextPart
from distill.data.text_windows import TextWindows, read_windows
from distill.tasks import text_task
from distill.training.accelerator import RunAccelerator, end_training, main_process_first
from distill.training.context import TrainingContext
from distill.training.run_folder import RunFolder
from distill.utils.files import copy_directory
from pipelines.run.baseline import train_baseline
from pipelines.run.context import DistillationSetup, RunContext, open_run_folder, student_layer_map
from pipelines.run.publish import publish
from pipelines.run.recipe import stages_at_depth
from pipelines.run.stages import run_stages
from pipelines.run.student import build_student
from pipelines.run.teacher import finetune_teacher
from teachers.finetuning import starting_teacher


def open_text_run(
    config: Config, accelerator: RunAccelerator, folder: RunFolder
) -> tuple[RunContext, DistillationSetup, PreTrainedModel]:
    """Read the text and build the models as they start, the student to be looked at; nothing is written yet.

    Raises:
        UserError: the text or a model cannot be read, or they do not fit each other.
    """
    assert config.model is not None, "check_config has asked for it"
    kind = config.model
    task = text_task(kind)
    splits = main_process_first(accelerator, lambda: load_text(config.data))
    text = splits.text
    assert text is not None, "the task has one"
    training = TrainingContext(accelerator, config.training, config.seed)
    context = RunContext(config, training, folder, task, splits)
    source = main_process_first(accelerator, lambda: starting_teacher(config, task, splits, folder))
    source.model.to(accelerator.device)

    def windows(name: str, text: TextPart, *, whole: bool, most: int | None = None) -> TextWindows:
        length, seed = config.data.max_length, config.data.seed
        how = {"whole": whole, "of_passages": config.data.passages}
        return read_windows(text, source.tokenizer, length, kind, name=name, seed=seed, most=most, **how)

    train = windows("train", text.train, whole=False, most=config.data.max_train_examples)
    held_out = windows("held-out train", text.held_out, whole=True)
    validation = windows(VALIDATION, text.validation, whole=True)
    from_scratch = config.teacher.checkpoint is None
    config = choose_text_recipe(config, len(train), from_scratch=from_scratch)
    layer_map = student_layer_map(config, source.model)
    stages = stages_at_depth(config.stages, layer_map, int(source.model.config.num_hidden_layers))
    setup = DistillationSetup(
        source,
        is_ours=folder.result("teacher") is not None,
        train=train,
        held_out=held_out,
        validation={VALIDATION: validation},
        layer_map=layer_map,
        stages=stages,
    )
    context = replace(context, config=config)
    student = build_student(context, setup.start, setup, quiet=True)
    accelerator.print("\n".join(banner(context, setup, sum(each.numel() for each in student.parameters()))))
    return context, setup, student


def banner(context: RunContext, setup: DistillationSetup, parameters: int) -> list[str]:
    """Return what the run reads and trains, line by line."""
    length = context.config.data.max_length
    what = f"passages and pairs of up to {length}" if context.config.data.passages else f"windows of {length}"
    read = {"train": setup.train, "held-out train": setup.held_out, **setup.validation}
    lines = [f"{name}: {len(part.token_ids):,} tokens in {len(part):,} {what}" for name, part in read.items()]
    teacher = context.config.teacher
    lines += [*context.splits.notes, f"vocabulary: {len(setup.tokenizer):,} tokens"]
    if teacher.epochs:
        count = sum(each.numel() for each in setup.teacher.parameters())
        trained = (
            "as it is" if setup.source.is_trained else f"{teacher.epochs:g} epochs in batches of {teacher.batch_size}"
        )
        lines.append(f"teacher: {count / 1e6:.2f} M parameters, {trained}")
    lines.append(f"student: {parameters / 1e6:.2f} M parameters")
    lines += [f"stage {each.name}: {each.epochs:g} epochs in batches of {each.batch_size}" for each in setup.stages]
    return lines


def run_text_phases(context: RunContext, setup: DistillationSetup) -> None:
    """Go through every phase that is not finished yet: teacher, stages, baseline and comparison.

    Without a teacher, where ``teacher.epochs`` is 0, the baseline is the student.
    """
    with open_run_folder(context):
        folder = context.folder
        if context.config.teacher.epochs == 0:
            student, baseline = train_baseline(context, setup), None
            assert student is not None, "the recipe gives it epochs"
            if context.run.accelerator.is_main_process and not folder.student.exists():
                copy_directory(folder.baseline, folder.student)
        else:
            setup = finetune_teacher(context, setup)
            student = run_stages(context, setup)
            baseline = train_baseline(context, setup)
        from pipelines.run.text_comparison import compare_language_models  # matplotlib takes time and memory

        compare_language_models(context, setup, student, baseline)
        if context.run.accelerator.is_main_process:
            publish(context.config, folder)
    end_training(context.run.accelerator)
