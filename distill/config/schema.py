"""The configuration of a run: frozen dataclasses, one for every section of the YAML file.

`distill.config.parsing` fills and checks them.
"""

from dataclasses import dataclass, field

from distill.config.data_schema import DataConfig
from distill.config.student_schema import StudentSettings

RELATIONS = ("value_relations", "query_relations", "key_relations")
LAYER_LOSSES = ("attention_output", "attention_context", "attention_map", "hidden_states", *RELATIONS)
LOSSES = (*LAYER_LOSSES, "logits", "labels", "compression")
TRAINABLE = ("features", "attention", "head", "encoder", "all")
SCRATCH = "scratch"
IMPORTANCE = "importance"
BALANCED = "balanced"
FIRST_TOKEN, FULL = "first_token", "full"
AUTO = "auto"
PRECISIONS = ("no", "bf16", "fp16")
SOFTMAX_STUDENT = "softmax_student"
EXACT_FORM = "exact_form"
TARGETS = ("teacher", SOFTMAX_STUDENT, EXACT_FORM)
PACKED = "packed"
AUGMENTATIONS = ("replace", "masked_lm", "cut", "mix")
TENSORBOARD = "tensorboard"
BYTE, CHARACTER, WORD, WORDPIECE = "byte", "character", "word", "wordpiece"
TEXT_UNITS = (BYTE, CHARACTER, WORD, WORDPIECE)


@dataclass(frozen=True)
class ScratchConfig:
    """Size of a BERT trained from scratch, if teacher.checkpoint is null."""

    num_layers: int = 4
    """Number of layers."""
    hidden_size: int = 128
    """Width of the hidden states."""
    num_heads: int = 4
    """Attention heads per layer; must divide hidden_size."""
    intermediate_size: int = 512
    """Width of the feed-forward layers."""
    vocabulary_size: int = 4000
    """Size of the WordPiece vocabulary, which is trained on the task's training texts."""


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher: an encoder to fine-tune, a finished classifier, or a BERT trained from scratch."""

    checkpoint: str | None = "bert-base-uncased"
    """Hub name or folder. A BERT with a trained classification head is used as it is, an encoder is fine-tuned;
    null: a BERT is trained from scratch."""
    scratch: ScratchConfig = ScratchConfig()
    epochs: float | None = None
    """Passes over the training set; null: chosen from its size. Task text: 0 for no teacher, the student is then
    trained on the text alone, by the settings of baseline."""
    learning_rate: float | None = None
    """Peak learning rate; null: 7e-5 for a hidden size of 768, higher for narrower teachers, with a layer_decay of
    0.8."""
    batch_size: int | None = 32
    """Examples per optimizer step over all processes; null: 16, fewer where texts have more than 512 tokens."""
    freeze_word_embeddings: bool = False
    """Keep the word embeddings fixed: a third less work per step on short texts."""
    freeze_encoder: bool = False
    """Train the head alone: the masked-LM head that an encoder lacks, say, for students of its layers."""
    layer_decay: float | None = None
    """Learning rate of a layer relative to the layer above it; below 1, lower layers and embeddings change less.
    null: 0.8 if the learning rate is null too, else 1."""
    new_pooler: bool | None = None
    """Reinitialise the pooler of the encoder; null: if it was never trained, as in most sentence encoders."""
    new_head: bool = False
    """Draw the head anew, also of a finished classifier, which is then fine-tuned as an encoder is: what it learned
    of another task helps where both compare texts (MNLI, MRPC or STS-B before RTE)."""
    new_layers: int = 0
    """Draw so many of the top layers anew: those of a pretrained encoder can be a bad start for few examples."""
    patience: int | None = None
    """Stop after this many epochs without a better mean of the task's metrics on held-out train; null: never."""
    tries: int = 1
    """Fine-tune so many times, each from another seed, and keep the one that is best on held-out train."""
    margin_over_majority: float = 0.05
    """Refuse to distil from a teacher whose answers on validation correlate with the labels (Matthews, Pearson) by no
    more than this; answering the majority class always has 0. A negative value accepts any teacher."""
    trust_remote_code: bool = False
    """Run the Python code that teacher.checkpoint brings along, which can do all that you can: read it first. Only
    with student.checkpoint; no student carries it on."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: which losses, on what, for how long."""

    name: str
    """Name of the stage in logs, checkpoints and the record."""
    epochs: float
    """Passes over the training set; 0.5 is half of one."""
    learning_rate: float
    """Peak learning rate."""
    losses: dict[str, float]
    """Weight of every loss. logits: temperature squared times KL, labels: cross entropy (both MSE for regression);
    compression: how well the slots of attention compressive represent their tokens; the others match a layer.
    attention_output replaces what a mechanism does not have."""
    train: str = "encoder"
    """What is trained: features (the mechanism's own parameters; if it has none, attention), attention (attention
    blocks), head (what stands behind the layers), encoder (all but the word embeddings) or all."""
    feature_learning_rate: float | None = None
    """Learning rate of the mechanism's own parameters; null: a hundred times learning_rate where they start near 1
    (performer, hedgehog, abc and others), ten times elsewhere."""
    layer_decay: float = 1.0
    """Learning rate of a layer relative to the layer above it."""
    attention: str | None = None
    """softmax: train with softmax attention first; the mechanism then takes over these weights. null: train with
    the mechanism."""
    targets: str = "teacher"
    """Whose outputs are matched: teacher, softmax_student (the result of the last stage with attention softmax,
    layer by layer) or exact_form (the student itself with softmax attention, at every text length)."""
    texts: str = "train"
    """What is read: train (with the copies of augmentation and data.unlabelled) or packed (texts of all lengths up to
    the student's positions, joined from those of train)."""
    inputs: str = "student"
    """What each layer reads: the student's own activations, or, in attention blocks, the teacher's."""
    last_layer: str = "all"
    """Tokens of the last layer that are computed and matched: all, or first_token, the only one that a classifier
    reads (not with attention_map, relations and compression)."""
    temperature: float = 1.0
    """Temperature of both distributions in the logits loss."""
    final_temperature: float | None = None
    """Temperature at the end of the stage, reached linearly; null: constant."""
    final_losses: dict[str, float] | None = None
    """Weights of losses at the end of the stage, reached linearly; 0 is allowed. null, and losses not named:
    constant."""
    dropout: bool = False
    """Whether dropout is on; best off while layers are matched and on in the last stage."""
    batch_size: int = 32
    """Examples per optimizer step over all processes."""
    keep_best_epoch: bool = False
    """End with the weights of the best epoch, by the mean of the task's metrics on held-out train, or with the initial
    weights if none is better (teacher and baseline: always an epoch)."""
    average_epochs: int = 1
    """End with the mean weights of this many last epochs."""
    patience: int | None = None
    """Stop after this many epochs without a better mean of the task's metrics on held-out train; null: never."""
    width: str | None = None
    """full: as wide as the model that the student is made of, out of which the narrower student is then taken."""

    @property
    def reads_logits(self) -> bool:
        """Whether a loss reads what the model predicts."""
        return not {"logits", "labels"}.isdisjoint(self.losses)


@dataclass(frozen=True)
class AugmentationConfig:
    """More texts for the stages, made from the training texts and labelled by the teacher alone."""

    copies: int | None = None
    """Altered copies of every training example; 0: none; null: where they help if stages are auto, else none."""
    kinds: list[str] = field(default_factory=lambda: ["replace", "mix", "cut"])
    """How copies are made, in turn: replace (words by neighbours in the student's embeddings), masked_lm (words by
    predictions of a masked language model), cut (a span is left out), mix (ends like another example)."""
    choose: bool = False
    """Try every kind first, in the stages with softmax attention where there are any, and make copies of those alone
    that bring the student nearer to its teacher on held-out train than none do; where no kind does, none."""
    masked_lm: str | None = None
    """masked_lm: masked language model, Hub name or folder, with the student's tokenizer, such as the teacher of
    configs/general.yaml; null: the checkpoint that the student is made of."""
    share: float = 0.4
    """replace, masked_lm: share of the words that change; cut: share of the tokens left out."""
    candidates: int = 15
    """replace, masked_lm: number of candidates that a new word is drawn from."""
    tasks: list[str] = field(default_factory=list)
    """Other tasks in data.dir whose training texts the stages read too; at most data.max_train_examples of each."""


@dataclass(frozen=True)
class BaselineConfig:
    """The same student trained on labels alone, for comparison."""

    checkpoint: str | None = None
    """Encoder to start from, which has seen no label of the task; scratch: an untrained BERT of the teacher's size;
    null: what the teacher started from (a finished classifier: that classifier, which has seen the labels)."""
    epochs: float | None = None
    """Passes over the training set; null: as many as all stages together (stages auto: as many optimizer steps as
    they take without the mechanism); 0: no baseline."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    batch_size: int | None = 32
    """Examples per optimizer step over all processes; null: 16, fewer where texts have more than 512 tokens."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of every stage."""

    warmup: float = 0.1
    """Share of the steps over which the learning rate rises; it then falls linearly to zero."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    max_gradient_norm: float = 1.0
    """Largest norm of the gradient; longer ones are scaled down to it."""
    gradient_accumulation: int = 1
    """Split every batch into this many parts that are computed one after the other, which needs less memory."""
    mixed_precision: str | None = "auto"
    """Precision of training. auto: bf16 if the device multiplies it natively, else fp32, unless the launcher asks
    for bf16 or fp16; null: the launcher's."""
    checkpoint_every: int = 500
    """Optimizer steps between checkpoints."""
    log_every: int = 20
    """Optimizer steps between entries in TensorBoard and other trackers."""
    class_weights: str | list[float] | None = None
    """How much an example of each class counts in the loss labels, wherever it is used: balanced (as much as the
    class is rare in train), a list of numbers in label order, or null, all alike. For classes alone."""
    label_smoothing: float = 0.0
    """Share of the probability that the loss labels asks for spread evenly over all classes. For classes alone."""


@dataclass(frozen=True)
class CacheConfig:
    """The teacher's outputs, computed once."""

    dir: str | None = None
    """Folder shared between runs; stages with softmax attention that several runs have in common are then trained
    once. null: in the run folder, where what no later stage reads is removed."""
    max_gigabytes: float = 16.0
    """Largest size on disk; in a shared folder the least recently used outputs make room, and what is larger alone is
    computed again in every step."""


@dataclass(frozen=True)
class ComparisonConfig:
    """The comparison of teacher and student at the end."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 32])
    """Batch sizes at which speed is measured."""
    lengths: list[int] = field(default_factory=lambda: [16, 32, 128, 512, 1024, 2048, 4096])
    """Sequence lengths in tokens at which speed is measured."""
    dtype: str = "float32"
    """Precision in which speed is measured."""
    seconds_per_point: float = 2.0
    """Time in seconds for each batch size and length."""
    max_seconds: float = 180.0
    """Time in seconds for all of them together; a point left out is null, with the reason."""
    resamples: int = 10_000
    """Bootstrap resamples behind every interval."""
    memory: bool = True
    """Measure peak memory, each point in a fresh process."""


@dataclass(frozen=True)
class HubConfig:
    """Where the finished student goes on the Hugging Face Hub."""

    repo: str | None = None
    """Name of the repository, such as me/my-student, that gets student, model card and record when the run is
    finished; null: nothing is pushed."""
    private: bool = True
    """Whether a repository that is made for it is private."""


@dataclass(frozen=True)
class Config:
    """A whole run; see configs/ for one file per task."""

    task: str
    """Task to learn: a published one, custom, a table of your own, or text, for language models."""
    model: str | None = None
    """Task text: causal (predicts each token from those before it) or masked (predicts masked tokens from all
    others)."""
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = TeacherConfig()
    student: StudentSettings = field(default_factory=StudentSettings)
    stages: tuple[StageConfig, ...] = ()
    """Stages of training, one after the other; auto: chosen from the data. A list given later replaces the whole
    list."""
    augmentation: AugmentationConfig = AugmentationConfig()
    baseline: BaselineConfig = BaselineConfig()
    training: TrainingConfig = TrainingConfig()
    cache: CacheConfig = CacheConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    hub: HubConfig = HubConfig()
    seed: int = 42
    """Seed of training: weights, order of the examples, dropout and random features."""
    run_dir: str | None = None
    """Folder for everything of the run; null: runs/<task>. Run again with the same folder to resume."""
    trackers: list[str] = field(default_factory=lambda: [TENSORBOARD])
    """Where losses and metrics are shown while a run trains; [] for nowhere. All but tensorboard are packages that you
    install, and services that you log in to."""
