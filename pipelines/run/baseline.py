"""The baseline: the same student, trained on labels alone."""

from distill.config.schema import PACKED, SCRATCH, Config, StageConfig
from distill.evaluation.predict import held_out_scorer, settle_threshold, validation_metrics
from distill.training.accelerator import main_process_first
from distill.training.context import StageInputs
from distill.training.loop import StageTrainer
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.phase import PhaseResult, record_phase
from pipelines.run.student import build_student, load_student
from students import StudentForSequenceClassification
from teachers.finetuning import label_free_start


def more_text(config: Config, setup: DistillationSetup) -> float:
    """Return how many texts the stages read for every one that the baseline does; those without labels aside."""
    others = 0 if setup.other is None else len(setup.other)
    return 1 + (config.augmentation.copies or 0) + others / len(setup.train)


def train_baseline(context: RunContext, setup: DistillationSetup) -> StudentForSequenceClassification | None:
    """Train the same student on labels alone; None where the configuration wants no baseline."""
    config, folder = context.config, context.folder
    if config.baseline.epochs == 0:
        return None
    if folder.result("baseline") is not None:
        return load_student(context, folder.checked_model("baseline"))
    start = main_process_first(
        context.run.accelerator, lambda: label_free_start(config, context.task, context.splits, setup.start)
    )
    baseline = build_student(context, start, setup, role="baseline")
    stage = baseline_stage(config, setup)
    scorer = held_out_scorer(context.run, context.task, setup.held_out)
    inputs = StageInputs(setup.train)
    progress = StageTrainer(context.run, baseline, stage, inputs, folder.phase("baseline"), scorer).run()
    settle_threshold(context.task, baseline, setup.held_out, context.device, anew=True)
    _, metrics = validation_metrics(context.run, context.task, baseline, setup.validation)
    record_phase(context, setup, baseline, PhaseResult(stage, progress, metrics))
    return baseline


def baseline_stage(config: Config, setup: DistillationSetup) -> StageConfig:
    """Return the training of the baseline, on labels alone; by default it sees as many examples as all stages do."""
    epochs, batch_size = config.baseline.epochs, config.baseline.batch_size
    assert batch_size is not None, "the recipe fills it in"
    read = sum(stage.epochs for stage in setup.stages if stage.texts != PACKED)
    in_stages = max(1, round(read * more_text(config, setup)))
    origin = config.student.checkpoint or config.teacher.checkpoint
    untrained = origin is None or config.baseline.checkpoint == SCRATCH
    return StageConfig(
        name="baseline",
        epochs=in_stages if epochs is None else epochs,
        learning_rate=config.baseline.learning_rate,
        losses={"labels": 1.0},
        train="all" if untrained else "encoder",
        dropout=True,
        batch_size=batch_size,
        keep_best_epoch=True,
    )
