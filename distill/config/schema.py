"""The configuration of a run: frozen dataclasses, one for every section of the YAML file.

`distill.config.parsing` fills and checks them.
"""

from dataclasses import dataclass, field

LAYER_LOSSES = ("attention_output", "attention_context", "attention_map", "hidden_states", "value_relations")
LOSSES = (*LAYER_LOSSES, "logits", "labels", "compression")
TRAINABLE = ("features", "attention", "encoder", "all")
SCRATCH = "scratch"
IMPORTANCE = "importance"
FIRST_TOKEN = "first_token"
AUTO = "auto"
PRECISIONS = ("no", "bf16", "fp16")
SOFTMAX_STUDENT = "softmax_student"
EXACT_FORM = "exact_form"
TARGETS = ("teacher", SOFTMAX_STUDENT, EXACT_FORM)
PACKED = "packed"
AUGMENTATIONS = ("replace", "masked_lm", "cut", "mix")


@dataclass(frozen=True)
class DataConfig:
    """Where the examples come from and how long they may be."""

    dir: str | None = None
    """Folder with <task>/{train,validation}.<csv|tsv|jsonl|parquet>; embedded: miniature GLUE; null: the Hub; task
    custom: also one file, or a folder with the files of the splits in it."""
    max_length: int = 128
    """Longest sequence in tokens; longer texts are cut."""
    max_train_examples: int | None = None
    """Train on a random subset of this size; null: all."""
    held_out_fraction: float = 0.05
    """Share of train on which epochs are selected; validation is only ever reported."""
    seed: int = 0
    """Seed of the subset, of what is split off and of the embedded grammar (not of the training)."""
    validation_fraction: float = 0.1
    """task custom without a validation file: share of the rows that is split off for it, every class in its share;
    at least 200 rows, where these are no more than a fifth."""
    text_columns: list[str] | str | None = None
    """task custom: the text column, or a list of two; null: found where their names are plain."""
    label_column: str = "label"
    """task custom: the column to predict; where there is no column label, one of another plain name is found."""
    label_names: list[str] | None = None
    """task custom: class names in label order; null: found in the train file, sorted."""
    regression: bool = False
    """task custom: the label is a number."""

    def __post_init__(self) -> None:
        if isinstance(self.text_columns, str):  # one column may be given without brackets, and is kept as a list
            object.__setattr__(self, "text_columns", [self.text_columns])


@dataclass(frozen=True)
class ScratchConfig:
    """Size of a BERT trained from scratch, used when teacher.checkpoint is null."""

    num_layers: int = 4
    hidden_size: int = 128
    num_heads: int = 4
    intermediate_size: int = 512
    vocabulary_size: int = 4000
    """Size of the WordPiece vocabulary trained on the task's train texts."""


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher: a checkpoint to fine-tune, a finished classifier to take as it is, or a BERT from scratch."""

    checkpoint: str | None = "bert-base-uncased"
    """Hub name or folder; a BERT with a trained classification head is taken as finished; null: from scratch."""
    scratch: ScratchConfig = ScratchConfig()
    epochs: float | None = None
    """Passes over the train examples; null: as many optimizer steps as their number asks for."""
    learning_rate: float | None = None
    """null: 7e-5 for a hidden size of 768, more for narrower teachers, with a layer_decay of 0.8."""
    batch_size: int = 32
    freeze_word_embeddings: bool = False
    """Leave the word embeddings as they are: a third less work per step on short texts."""
    layer_decay: float | None = None
    """Learning rate of a layer over that of the layer above it; lower layers and embeddings then move less. null: 0.8
    where the learning rate is chosen too, else 1."""
    new_pooler: bool | None = None
    """Draw the pooler of an encoder anew; null: where it was never trained, as in most sentence encoders."""
    margin_over_majority: float = 0.05
    """Refuse to distil from a teacher whose answers on validation correlate with the labels (Matthews, Pearson) by no
    more than this; answering the majority class always has 0. A negative value takes any teacher."""


@dataclass(frozen=True)
class StudentSettings:
    """The student: fewer layers of the teacher with another attention mechanism."""

    attention: str = "performer"
    num_layers: int = 3
    layer_map: str | list[int] = "even"
    """Teacher layers that the student starts from: even, first, last, importance (those whose loss changes the
    teacher's decisions most) or an explicit list such as [0, 2, 4]."""
    num_features: int | list[int] | None = None
    """Features, landmarks or slots per head, of mechanisms with any, or a list with a number for every layer; null:
    the default (performer: d ln d)."""
    attention_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """The mechanism's own options, such as {window: 64}; students/attention/<name>.py lists them."""
    features: str = "fixed"
    """Random features: fixed, redrawn (a new draw every redraw_interval steps) or learned (a matrix per head)."""
    exact_up_to: int = 0
    """Texts of at most this many tokens are attended exactly, with the student's own queries and keys, longer ones by
    its mechanism, which must estimate softmax attention; 0: never."""
    redraw_interval: int = 1000
    """Features redrawn: optimizer steps between draws; off in the last fifth of a stage."""
    initial_temperature: float | str = "calibrated"
    """Start of the learnable temperature per head, of mechanisms with any; `calibrated` measures the copied queries
    and keys (performer, scatterbrain, rfa; 1 for the others)."""
    softmax_layers: list[int] = field(default_factory=list)
    """Student layers that keep softmax attention; -1 is the last, where it is linear too, for the classifier reads one
    token."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: which losses pull, on what, for how long."""

    name: str
    epochs: float
    """Passes over the train examples; 0.5 is half of one."""
    learning_rate: float
    losses: dict[str, float]
    """Loss name to weight: attention_output, attention_context, attention_map, hidden_states, value_relations,
    logits (temperature squared times KL; MSE for regression), labels (cross entropy; MSE for regression), compression
    (attention compressive: how badly its slots stand for the tokens in them). Of a mechanism without maps, contexts
    or values, attention_output is matched instead."""
    train: str = "encoder"
    """What learns: features (the mechanism's own parameters; if it has none, attention), attention (whole attention
    blocks), encoder (everything but word embeddings) or all."""
    feature_learning_rate: float | None = None
    """Learning rate of the mechanism's own parameters; null: a hundred times learning_rate where they start with
    entries near 1, BERT's near 0.05 (performer, hedgehog, abc and their like), ten times elsewhere."""
    layer_decay: float = 1.0
    """Learning rate of a layer over that of the layer above it."""
    attention: str | None = None
    """softmax: this stage, one of the first, trains the student with softmax attention in place of its mechanism;
    null: with its mechanism, which takes over the weights of the stage before (depth first, then linear)."""
    targets: str = "teacher"
    """Whose outputs are matched: teacher; softmax_student, what the last stage with attention: softmax left, which has
    the student's depth, so that layer matches layer; or exact_form, the student itself with softmax attention, which
    its mechanism learns to estimate in texts of every length, short ones too."""
    texts: str = "train"
    """What is read: train (with the copies of augmentation), or packed: texts of all lengths up to the student's
    positions, put together from those of train."""
    inputs: str = "student"
    """student: layers read the student's own activations; teacher: each attention block reads the teacher's."""
    last_layer: str = "all"
    """Which tokens of the last layer are computed and matched: all, or first_token, the only one that a classifier
    reads; with the losses attention_output, attention_context, hidden_states, logits and labels."""
    temperature: float = 1.0
    """Softening of both distributions in the logits loss."""
    final_temperature: float | None = None
    """What temperature goes to in a straight line over the stage; null: it stays."""
    final_losses: dict[str, float] | None = None
    """What the weights of losses go to in a straight line, 0 allowed; null, and losses not named here: they stay."""
    dropout: bool = False
    """Whether dropout is on; matching layer outputs wants it off, the last stage on."""
    batch_size: int = 32
    """Examples per optimizer step over all processes."""
    keep_best_epoch: bool = False
    """End with the weights of the epoch that was best on the held-out part of train, or of the start if none is
    better (of the teacher and the baseline, whose heads start untrained, always of an epoch)."""
    average_epochs: int = 1
    """End with the mean of the weights of this many last epochs."""
    patience: int | None = None
    """Stop after this many epochs without a better held-out score; null: never."""


@dataclass(frozen=True)
class AugmentationConfig:
    """More texts for the stages, made out of the train texts and labelled by the teacher alone."""

    copies: int | None = None
    """Altered copies of every train example; 0: none; null: with stages auto where they help, otherwise none."""
    kinds: list[str] = field(default_factory=lambda: ["replace", "mix", "cut"])
    """How copies are made, in turn: replace (words by neighbours in the teacher's embeddings), masked_lm (words by
    what the masked-LM head of teacher.checkpoint expects), cut (a span left out), mix (the end of another example)."""
    share: float = 0.4
    """replace, masked_lm: share of the words that change; cut: share of the tokens that are left out."""
    candidates: int = 15
    """replace, masked_lm: a new word is drawn from so many."""
    tasks: list[str] = field(default_factory=list)
    """Other tasks of data.dir whose train texts the stages read as well; of each at most data.max_train_examples."""


@dataclass(frozen=True)
class BaselineConfig:
    """The same student trained on labels alone, from the teacher's own starting point."""

    checkpoint: str | None = None
    """What it starts from: an encoder that has seen no label of the task; scratch: the untrained BERT of the teacher's
    size; null: what the teacher started from."""
    epochs: float | None = None
    """null: as many epochs as all stages together, so that both see as many examples (with stages auto, as many
    optimizer steps as teach the student without its mechanism); 0: no baseline."""
    learning_rate: float = 1e-4
    batch_size: int = 32


@dataclass(frozen=True)
class TrainingConfig:
    """What holds for every stage."""

    warmup: float = 0.1
    """Share of a stage's steps in which the learning rate rises; it falls linearly to zero afterwards."""
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    gradient_accumulation: int = 1
    """Cut every batch into this many parts that are computed one after the other."""
    mixed_precision: str | None = "auto"
    """auto (bf16 where the device multiplies it natively, otherwise fp32, unless the launcher asks for bf16 or fp16),
    no, bf16 or fp16; null: what the launcher says."""
    checkpoint_every: int = 500
    """Optimizer steps between checkpoints."""
    log_every: int = 20
    """Optimizer steps between lines in TensorBoard."""


@dataclass(frozen=True)
class CacheConfig:
    """The teacher's outputs, computed once."""

    dir: str | None = None
    """Folder shared between runs, in which stages with attention softmax that are the same in several runs are kept
    too, so that one run trains them; null: inside the run folder, removed when the run is finished."""
    max_gigabytes: float = 16.0
    """Layer outputs that need more disk than this are computed anew in every step instead."""


@dataclass(frozen=True)
class ComparisonConfig:
    """How teacher and student are compared at the end."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 32])
    lengths: list[int] = field(default_factory=lambda: [16, 32, 128, 512, 1024, 2048, 4096])
    """Sequence lengths in tokens at which speed is measured."""
    dtype: str = "float32"
    seconds_per_point: float = 2.0
    max_seconds: float = 180.0
    """Of all speed points together; a point that does not fit is null and says so."""
    resamples: int = 10_000
    """Bootstrap resamples behind every interval."""
    memory: bool = True
    """Measure peak memory, each point in a fresh process."""


@dataclass(frozen=True)
class Config:
    """A whole run; see configs/ for one file per task."""

    task: str
    stages: tuple[StageConfig, ...] = ()
    """A list; one given later replaces the whole list, where the parser would mix two lists of one length. auto, which
    an empty one stands for: chosen from the data, as `distill.config.recipe` says."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentSettings = StudentSettings()
    augmentation: AugmentationConfig = AugmentationConfig()
    baseline: BaselineConfig = BaselineConfig()
    training: TrainingConfig = TrainingConfig()
    cache: CacheConfig = CacheConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    seed: int = 42
    run_dir: str | None = None
    """Where everything of the run goes; null: runs/<task>. Run again with the same folder to resume."""
