"""What task text leaves open, chosen from the length of the text."""

from dataclasses import replace

from distill.config.schema import Config, StageConfig

TOKENS_PER_BATCH = 8192
SCRATCH_RATE, TUNING_RATE = 1e-3, 1e-4
DECISIONS_RATE = 3e-4
"""Of a student whose layers are like its teacher's by then: at 1e-3 and without dropout it learns a short text by
heart (notebooks/LOG.md)."""
FEWEST_STEPS, MOST_EPOCHS = 2000, 20
"""A language model from scratch takes so many steps, but no more passes over its text."""


def choose_text_recipe(config: Config, rows: int, *, from_scratch: bool) -> Config:
    """Return the configuration with everything filled in that it leaves open.

    Args:
        config: of task text.
        rows: windows of train.
        from_scratch: whether the teacher starts with weights that were drawn.
    """
    batch = max(1, TOKENS_PER_BATCH // config.data.max_length)
    teacher, baseline = config.teacher, config.baseline
    teacher = replace(teacher, batch_size=teacher.batch_size or batch)
    baseline = replace(baseline, batch_size=baseline.batch_size or batch)
    if teacher.epochs is None:
        teacher = replace(teacher, epochs=passes(FEWEST_STEPS, rows, teacher.batch_size or batch))
    if teacher.learning_rate is None:
        teacher = replace(teacher, learning_rate=SCRATCH_RATE if from_scratch else TUNING_RATE)
    if teacher.layer_decay is None:
        teacher = replace(teacher, layer_decay=1.0)
    config = replace(config, teacher=teacher, augmentation=replace(config.augmentation, copies=0))
    if not config.stages and teacher.epochs != 0:
        config = replace(config, stages=text_stages(rows, batch))
    if baseline.epochs is None:
        read = sum(stage.epochs for stage in config.stages)
        alone = passes(FEWEST_STEPS, rows, baseline.batch_size or batch)
        baseline = replace(baseline, epochs=read or alone)
    return replace(config, baseline=baseline)


def passes(steps: int, rows: int, batch_size: int) -> float:
    """Return how often a text of so many windows is read in about ``steps`` steps; at least once."""
    return float(min(MOST_EPOCHS, max(1, round(steps * batch_size / rows))))


def text_stages(rows: int, batch_size: int) -> tuple[StageConfig, ...]:
    """Return the stages: what every layer computes, then what is predicted."""
    return (
        StageConfig(
            name="layers",
            epochs=passes(FEWEST_STEPS // 2, rows, batch_size),
            learning_rate=SCRATCH_RATE,
            batch_size=batch_size,
            losses={"attention_output": 1.0, "hidden_states": 1.0},
        ),
        StageConfig(
            name="logits",
            epochs=passes(FEWEST_STEPS // 2, rows, batch_size),
            learning_rate=DECISIONS_RATE,
            batch_size=batch_size,
            losses={"logits": 0.5, "labels": 0.5},
            train="all",
            dropout=True,
            keep_best_epoch=True,
        ),
    )
