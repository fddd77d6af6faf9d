"""Get the teacher of a run: take a finished one, reuse the run's own, or fine-tune it with the one loop."""

from collections.abc import Callable
from dataclasses import replace

from transformers import PreTrainedModel

from distill.config.schema import SCRATCH, Config, StageConfig
from distill.config.student_start import other_encoder
from distill.data.batching import TokenizedExamples
from distill.data.splits import Splits
from distill.evaluation.predict import held_out_scorer, settle_threshold
from distill.models.positions import positions_of
from distill.models.windowed_bert import ReadsWindows
from distill.tasks import Task
from distill.training.context import StageInputs, TrainingContext
from distill.training.label_scale import measure_label_scale
from distill.training.loop import StageTrainer
from distill.training.progress import Progress
from distill.training.run_folder import RunFolder, save_model
from distill.utils.errors import UserError
from distill.utils.files import remove
from teachers.any_classifier import load_any_teacher
from teachers.first_token import reading_first_token
from teachers.language_models import starting_language_model, untrained_language_model
from teachers.loading import NOTHING, Teacher, is_classifier, load_teacher, teacher_from_scratch, untrained_like
from teachers.redrawing import Redrawn, wanted_by
from teachers.tries import best_of_tries, kept_of, names_of_tries


def starting_teacher(config: Config, task: Task, splits: Splits, folder: RunFolder) -> Teacher:
    """Load the run's own teacher if it is finished, else what it starts from."""
    if task.language_model is not None:
        finished = folder.checked_model("teacher") if folder.result("teacher") is not None else None
        return starting_language_model(config, task, splits, finished)
    if folder.result("teacher") is not None:
        return _open_teacher(str(folder.checked_model("teacher")), config, task)
    return starting_point(config, task, splits)


def student_start(config: Config, task: Task, splits: Splits) -> Teacher | None:
    """Load the encoder that the student is made of, as a classifier; None where that is the teacher."""
    encoder = other_encoder(config)
    return None if encoder is None else _load_start(encoder, "student.checkpoint", config, task, splits)


def _load_start(checkpoint: str, key: str, config: Config, task: Task, splits: Splits) -> Teacher:
    start = load_teacher(checkpoint, task, config.seed, redrawn=Redrawn(config.teacher.new_pooler), key=key)
    if not start.is_trained:
        put_into_label_units(start.model, task, splits)
    return start


def _open_teacher(checkpoint: str, config: Config, task: Task, redrawn: Redrawn = NOTHING) -> Teacher:
    """Load a BERT or, where the student is made of another encoder, any classifier."""
    if other_encoder(config) is None:
        return load_teacher(checkpoint, task, config.seed, redrawn=redrawn)
    trusted = config.teacher.trust_remote_code
    return load_any_teacher(checkpoint, task, config.seed, redrawn=redrawn, trust_remote_code=trusted)


def prepare_teacher(
    run: TrainingContext,
    config: Config,
    task: Task,
    teacher: Teacher,
    train_examples: TokenizedExamples,
    held_out: TokenizedExamples,
    folder: RunFolder,
    start_again: Callable[[int], PreTrainedModel],
) -> None:
    """Fine-tune the teacher in place if it is not finished, and leave it in ``<run_dir>/teacher``.

    Args:
        start_again: what another try starts from, of its seed.
    """
    result = kept_of(Progress())
    if not teacher.is_trained:

        def finetune(model: PreTrainedModel, seed: int, name: str) -> Progress:
            stage, scorer = finetuning_stage(config), held_out_scorer(run, task, held_out)
            longest = max(int(examples.lengths.max()) for examples in (train_examples, held_out))
            trained = model if task.language_model else reading_first_token(model, longest)
            inputs, own = StageInputs(train_examples), replace(run, seed=seed)
            return StageTrainer(own, trained, stage, inputs, folder.phase(name), scorer).run()

        result = best_of_tries(run, config.teacher.tries, teacher, folder, finetune, start_again)
    settle_threshold(task, teacher.model, held_out, run.accelerator.device, anew=not teacher.is_trained)
    if run.accelerator.is_main_process:
        save_model(teacher.model, teacher.tokenizer, folder.teacher, with_code=config.teacher.trust_remote_code)
        folder.finish("teacher", {"name": "teacher"} | result)
        for name in names_of_tries(config.teacher.tries):
            remove(folder.phase(name))
    run.accelerator.wait_for_everyone()


def starting_point(config: Config, task: Task, splits: Splits) -> Teacher:
    """Load what the teacher starts from: its checkpoint, or an untrained BERT of the configured size."""
    if config.teacher.checkpoint is not None:
        teacher = _open_teacher(config.teacher.checkpoint, config, task, wanted_by(config.teacher))
        check_windows(teacher, config, task)
    else:
        texts = (text for texts in splits.train.texts for text in texts)
        teacher = teacher_from_scratch(config.teacher.scratch, task, texts, config.data.max_length, config.seed)
    if not teacher.is_trained:
        put_into_label_units(teacher.model, task, splits)
    return teacher


def put_into_label_units(model: PreTrainedModel, task: Task, splits: Splits) -> None:
    """Scale a head that was just drawn, so that a regression starts at the mean of its train scores."""
    if task.is_regression:
        measure_label_scale(splits.train.labels).restore_head(model)


def check_windows(teacher: Teacher, config: Config, task: Task) -> None:
    """Refuse what a teacher cannot do that reads texts longer than its positions in windows; UserError says what."""
    if other_encoder(config) is not None and not isinstance(teacher.model, ReadsWindows):
        return  # it is given no more tokens than it has positions
    positions, max_length = positions_of(teacher.model), config.data.max_length
    if max_length <= positions:
        return
    start = f"data.max_length is {max_length} but the teacher has {positions} positions"
    if len(task.text_columns) > 1:
        raise UserError(f"{start}, and pairs of texts cannot be read in windows; give no more than {positions}")
    for stage in config.stages:
        if "attention_map" in stage.losses:
            raise UserError(
                f"stages.{stage.name}: {start}: it reads windows and has no attention_map over a whole text; "
                "leave that loss out"
            )


def label_free_start(config: Config, task: Task, splits: Splits, teacher: PreTrainedModel) -> PreTrainedModel:
    """Return what the baseline starts from: the student's own starting point, which has seen no label.

    A finished teacher hides where it came from; unless ``baseline.checkpoint`` tells, the baseline then starts
    from that teacher's layers.

    Args:
        teacher: or the encoder that the student is made of in its place.
    """
    if task.language_model is not None:
        return untrained_language_model(teacher, config.seed)
    if config.baseline.checkpoint == SCRATCH:
        model = untrained_like(teacher, config.seed)
        put_into_label_units(model, task, splits)
        return model
    if config.baseline.checkpoint is not None:
        return _load_start(config.baseline.checkpoint, "baseline.checkpoint", config, task, splits).model
    start = student_start(config, task, splits)
    if start is not None:
        return start.model
    own = config.teacher.checkpoint
    if own is not None and not config.teacher.new_head and is_classifier(own):
        return teacher
    return starting_point(config, task, splits).model


def finetuning_stage(config: Config) -> StageConfig:
    """Return fine-tuning as a stage without a teacher, ending with the epoch that was best on held-out train."""
    settings = config.teacher
    assert settings.epochs is not None, "the recipe fills it in"
    assert settings.batch_size is not None, "the recipe fills it in"
    assert settings.learning_rate is not None, "the recipe fills it in"
    assert settings.layer_decay is not None, "the recipe fills it in"
    return StageConfig(
        name="teacher",
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        losses={"labels": 1.0},
        layer_decay=settings.layer_decay,
        train="head" if settings.freeze_encoder else "encoder" if settings.freeze_word_embeddings else "all",
        dropout=True,
        batch_size=settings.batch_size,
        keep_best_epoch=True,
        patience=settings.patience,
    )
