"""The recipe that a run chooses by itself (``stages: auto``): what is trained, in optimizer steps, from the data.

A stage of layers or of decisions needs some hundreds of steps, whatever the number of examples: of few, many epochs,
of many, a part of one. Lengths were chosen on held-out parts of train (notebooks/LOG.md).
"""

import math
from dataclasses import dataclass, replace

from distill.config.schema import (
    EXACT_FORM,
    FIRST_TOKEN,
    PACKED,
    SOFTMAX_STUDENT,
    AugmentationConfig,
    Config,
    StageConfig,
    StudentSettings,
)
from distill.config.width_recipe import add_width
from distill.utils.errors import UserError

MIN_ROWS = 16
"""Train examples of the smallest recipe; fewer make no batch."""
MANY_PAIRS = 20_000
"""From so many train examples on, altered copies bring nothing that the examples themselves do not."""
COPIES = 3
REFERENCE_WIDTH, REFERENCE_RATE, LAYER_DECAY = 768, 7e-5, 0.8
"""The last layer of a BERT of this width is fine-tuned at this rate, every layer below at 0.8 times that of the layer
above it (as ELECTRA is, https://arxiv.org/abs/2003.10555); narrower encoders take more."""
LAYERS, SUMMARIES, DECISIONS = "layers", "summaries", "decisions"
LABEL_BATCH, LAYER_BATCH, LOGIT_BATCH, PACKED_BATCH = 16, 16, 32, 8
MOST_STEPS = 10_000
"""Of a stage, however many texts without labels there are; a longer one is asked for by its own ``epochs``."""
WHOLE_BATCH_LENGTH = 512
"""Up to so many tokens a batch is whole; of longer texts it has so many fewer that it takes no more memory."""


@dataclass(frozen=True)
class Facts:
    """What of data and models decides the recipe."""

    rows: int
    """Train examples, those held out left aside."""
    is_pair: bool
    long_share: float
    """Share of the train texts that are longer than ``student.exact_up_to``."""
    hidden_size: int
    """The teacher's."""
    longest: int = 0
    """Tokens of the longest train text."""
    matches: str = LAYERS
    """What of the teacher's layers can be matched: all of them token by token (layers), of a teacher with other tokens
    the one token that its head reads (summaries), or, where it shows no layers, none (decisions)."""
    unlabelled: int = 0
    """Texts without labels that the stages read too."""
    is_narrower: bool = False
    """Whether the student is narrower than what it is made of."""
    starts_linear: bool = False
    """Whether its layers come from an earlier student of the teacher's encoder, mechanism and all."""

    def batch(self, texts: int) -> int:
        """Return how many texts a batch of ``texts`` short ones has here."""
        return max(1, texts * WHOLE_BATCH_LENGTH // max(self.longest, WHOLE_BATCH_LENGTH))


@dataclass(frozen=True)
class Mechanism:
    """What of the student's attention decides the recipe."""

    is_softmax: bool
    trains_layers: bool
    has_features: bool
    """Whether it has parameters that BERT's attention has not."""


def choose_recipe(config: Config, facts: Facts, mechanism: Mechanism) -> Config:
    """Return the configuration with everything filled in that it leaves open.

    Teacher, stages, copies and baseline get lengths; what the configuration says stays as it is. A configuration with
    stages of its own has only the teacher's learning rate and epochs filled in.

    Raises:
        UserError: there are too few train examples.
    """
    if facts.rows < MIN_ROWS:
        raise UserError(
            f"train has {facts.rows} examples beside the held-out ones, and a recipe needs {MIN_ROWS}; give more"
        )
    teacher_batch, baseline_batch = (
        part.batch_size or facts.batch(LABEL_BATCH) for part in (config.teacher, config.baseline)
    )
    teacher = replace(config.teacher, batch_size=teacher_batch)
    baseline = replace(config.baseline, batch_size=baseline_batch)
    if teacher.epochs is None:
        teacher = replace(teacher, epochs=label_epochs(facts.rows, teacher_batch))
    if teacher.layer_decay is None:
        teacher = replace(teacher, layer_decay=LAYER_DECAY if teacher.learning_rate is None else 1.0)
    if teacher.learning_rate is None:
        teacher = replace(teacher, learning_rate=teacher_rate(facts.hidden_size, teacher_batch))
    augmentation = config.augmentation
    if augmentation.copies is None and augmentation.choose:
        augmentation = replace(augmentation, copies=COPIES)
    if augmentation.copies is None:
        augmentation = choose_copies(augmentation, facts) if not config.stages else replace(augmentation, copies=0)
    config = replace(config, teacher=teacher, augmentation=augmentation, baseline=baseline)
    if config.stages:
        return config
    texts = facts.rows * (1 + (augmentation.copies or 0)) + facts.unlabelled
    stages = choose_stages(config.student, facts, mechanism, texts)
    stages = add_width(stages) if facts.is_narrower else stages
    if baseline.epochs is None:
        baseline = replace(baseline, epochs=epochs_of(baseline_steps(facts), facts.rows, baseline_batch))
    return replace(config, stages=stages, baseline=baseline)


def teacher_rate(hidden_size: int, batch_size: int = LABEL_BATCH) -> float:
    """Return the learning rate of fine-tuning an encoder, of its last layer: 7e-5 at 768, 2e-4 at 384.

    Batches of fewer than 16 texts are noisier, and take the square root of their share of it.
    """
    noise = min(1.0, batch_size / LABEL_BATCH) ** 0.5
    return float(f"{REFERENCE_RATE * (REFERENCE_WIDTH / hidden_size) ** 1.5 * noise:.2g}")


def epochs_of(steps: int, rows: int, batch_size: int) -> float:
    """Return passes over ``rows`` examples that make about so many steps; the last one may be a part."""
    epochs = steps / math.ceil(rows / batch_size)
    digits = 1 if epochs > 1 else max(2, 1 - math.floor(math.log10(epochs)))
    return math.ceil(10**digits * epochs) / 10**digits


def _between(low: int, wanted: float, high: int) -> int:
    return int(min(max(low, wanted), high))


def label_epochs(rows: int, batch_size: int) -> float:
    """Return the passes of what labels alone teach: five, but no more than 600 steps; or three, whatever is more.

    At least 300 steps and at most 128,000 examples.
    """
    passes = rows / batch_size
    steps = _between(300, max(3 * passes, min(5 * passes, 600)), 128_000 // batch_size)
    return epochs_of(steps, rows, batch_size)


def baseline_steps(facts: Facts) -> int:
    """As many steps as lead the student, without its mechanism and texts without labels, to its own decisions."""
    labelled = replace(facts, unlabelled=0)
    return layer_steps(labelled) // 2 + logit_steps(labelled)


def layer_steps(facts: Facts) -> int:
    """Four passes in batches of 16, or fewer long texts, but at least 600 steps and at most 2,500.

    One pass over many texts without labels may take 10,000.
    """
    return _stage_steps(facts, LAYER_BATCH, 600, 2500)


def logit_steps(facts: Facts) -> int:
    """Four passes in batches of 32, or fewer long texts, but at least 300 steps and at most 2,000.

    One pass over many texts without labels may take 10,000.
    """
    return _stage_steps(facts, LOGIT_BATCH, 300, 2000)


def _stage_steps(facts: Facts, texts_per_batch: int, fewest: int, most: int) -> int:
    one_pass = (facts.rows + facts.unlabelled) / facts.batch(texts_per_batch)
    if facts.unlabelled:  # new texts show more of the teacher, where more passes over the known ones do not
        most = _between(most, one_pass, MOST_STEPS)
    return _between(fewest, 4 * one_pass, most)


def choose_copies(augmentation: AugmentationConfig, facts: Facts) -> AugmentationConfig:
    """Return altered copies where pairs are few: they show the student more of its teacher's comparisons.

    Single texts have none: of sentiments the student keeps as much without, and of CoLA's sentences, whose judgement
    hangs on every word, more (notebooks/LOG.md). Nor have pairs beside which there are as many without labels as there
    would be copies.
    """
    few = facts.rows < MANY_PAIRS and facts.unlabelled < COPIES * facts.rows
    return replace(augmentation, copies=COPIES if facts.is_pair and few else 0)


def choose_stages(student: StudentSettings, facts: Facts, mechanism: Mechanism, texts: int) -> tuple[StageConfig, ...]:
    """Return the stages: fewer layers with the teacher's own attention first, then the mechanism.

    Args:
        texts: what the stages read, copies included.
    """
    if not mechanism.trains_layers:
        return (logits_stage("logits", facts, texts),)
    layers, decisions = layers_stage("layers", facts, texts), logits_stage("logits", facts, texts)
    depth = () if facts.matches == DECISIONS else (layers,)
    if facts.matches == SUMMARIES:
        depth = (replace(layers, losses={"hidden_states": 1.0}),)
    if mechanism.is_softmax or facts.starts_linear:
        return *depth, replace(decisions, keep_best_epoch=True)
    first = (
        *(replace(stage, name="depth", attention="softmax") for stage in depth),
        replace(decisions, name="depth_logits", attention="softmax"),
    )
    last = (
        replace(layers, targets=SOFTMAX_STUDENT),
        replace(decisions, learning_rate=8e-5, keep_best_epoch=True),
    )
    if not student.exact_up_to:
        return (*first, transfer_stage(facts, texts), *last)
    fit, refit = ((fit_stage("fit", 4),), (fit_stage("refit", 8),)) if mechanism.has_features else ((), ())
    # Where no text is longer, both forms are done: the exact one is the softmax student, the other one fitted to it.
    # Where some are, the stages that follow move queries and keys away from what the mechanism was fitted to.
    return (*first, *fit, *((*last, *refit) if facts.long_share > 0 else ()))


def layers_stage(name: str, facts: Facts, texts: int) -> StageConfig:
    """Match what every layer computes."""
    return StageConfig(
        name=name,
        epochs=epochs_of(layer_steps(facts), texts, facts.batch(LAYER_BATCH)),
        learning_rate=2e-4,
        batch_size=facts.batch(LAYER_BATCH),
        losses={"attention_output": 1.0, "hidden_states": 1.0},
        last_layer=FIRST_TOKEN,
    )


def logits_stage(name: str, facts: Facts, texts: int) -> StageConfig:
    """Match the teacher's decisions."""
    return StageConfig(
        name=name,
        epochs=epochs_of(logit_steps(facts), texts, facts.batch(LOGIT_BATCH)),
        learning_rate=8e-5,
        batch_size=facts.batch(LOGIT_BATCH),
        losses={"logits": 0.9, "labels": 0.1},
        temperature=2.0,
    )


def transfer_stage(facts: Facts, texts: int) -> StageConfig:
    """Match the softmax student's attention with the mechanism's, every block alone."""
    return StageConfig(
        name="transfer",
        targets=SOFTMAX_STUDENT,
        inputs="teacher",
        train="attention",
        epochs=epochs_of(2 * layer_steps(facts), texts, facts.batch(LAYER_BATCH)),
        learning_rate=1e-3,
        batch_size=facts.batch(LAYER_BATCH),
        losses={"attention_output": 1.0},
        last_layer=FIRST_TOKEN,
    )


def fit_stage(name: str, epochs: int) -> StageConfig:
    """Fit the mechanism's own parameters to the student's softmax attention, in texts of all lengths."""
    return StageConfig(
        name=name,
        targets=EXACT_FORM,
        texts=PACKED,
        inputs="teacher",
        train="features",
        epochs=epochs,
        learning_rate=1e-3,
        batch_size=PACKED_BATCH,
        losses={"attention_output": 1.0},
        last_layer=FIRST_TOKEN,
    )


OPEN = {
    "stages": (),
    "teacher.epochs": None,
    "teacher.batch_size": None,
    "teacher.learning_rate": None,
    "teacher.layer_decay": None,
    "teacher.new_pooler": None,
    "augmentation.copies": None,
    "baseline.epochs": None,
    "baseline.batch_size": None,
    "training.mixed_precision": "auto",
}
"""Keys that a run fills in by itself, and what stands there until it has."""


def adopt(config: Config, saved: Config) -> Config:
    """Fill in what ``config`` leaves open as the run in this folder did when it began."""
    for key, unset in OPEN.items():
        section, _, name = key.rpartition(".")
        ours, theirs = (getattr(getattr(each, section) if section else each, name) for each in (config, saved))
        if ours != unset:
            continue
        if section:
            config = replace(config, **{section: replace(getattr(config, section), **{name: theirs})})
        else:
            config = replace(config, stages=theirs)
    if not config.augmentation.copies and not saved.augmentation.copies:  # kinds of copies that nobody makes
        config = replace(config, augmentation=replace(config.augmentation, kinds=saved.augmentation.kinds))
    return config
